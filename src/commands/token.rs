//! `tracegate token new`: a secret for somebody, and what to write into the file about it.

use std::io::Write;
use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand, ValueEnum};

use crate::admin::role::Role;
use crate::setting::Hash;

/// What may be done with tokens.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token for the admin address
    ///
    /// 256 random bits, shown once: the token goes to its bearer, its hash into [admin.tokens] of the
    /// configuration. To replace one, move the old hash to `previous` with a date until which it still opens.
    #[command(verbatim_doc_comment)]
    New(New),
}

/// For whom a token is.
#[derive(Debug, Args)]
pub struct New {
    /// What it may do
    #[arg(long)]
    role: Word,
    /// What the audit calls its bearer
    #[arg(long, default_value = "somebody")]
    name: String,
}

/// A role on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Word {
    /// Scrapes metrics
    Metrics,
    /// Sees what runs and how it is
    Support,
    /// Reads everything
    Developer,
    /// Reads everything and changes what runs
    Operator,
}

/// Prints a new token to standard output: itself first, alone on its line.
pub fn token(Token::New(new): &Token) -> ExitCode {
    let secret = format!("tg_{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
    match std::io::stdout().write_all(told(new, &secret).as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn told(new: &New, secret: &str) -> String {
    let role = match new.role {
        Word::Metrics => Role::Metrics,
        Word::Support => Role::Support,
        Word::Developer => Role::Developer,
        Word::Operator => Role::Operator,
    };
    let (name, role, hash) = (&new.name, role.word(), Hash::of(secret).digits());
    format!(
        "{secret}\n\n# The line above is the token: it is shown once. What follows goes into routes.toml.\n\
         [admin.tokens.{name}]\nrole = \"{role}\"\nsha256 = \"{hash}\"\n# expires = \"2030-01-31\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::{New, Word, told};
    use crate::setting::Hash;

    #[test]
    fn the_token_stands_alone_and_the_file_gets_its_hash_alone() {
        let new = New { role: Word::Operator, name: "deploy".to_owned() };
        let text = told(&new, "tg_secret");
        let (token, rest) = text.split_once('\n').unwrap();
        assert_eq!(token, "tg_secret");
        assert!(rest.contains(&Hash::of("tg_secret").digits()) && !rest.contains("tg_secret"), "{rest}");
        assert!(rest.contains("[admin.tokens.deploy]") && rest.contains("role = \"operator\""), "{rest}");
    }
}
