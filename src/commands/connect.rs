//! `tracegate check --connect`: who can be reached, and how long that took.

use serde_json::{Value, json};

use crate::gateway::Settings;
use crate::gateway::reach::{self, Reached};

/// Tries everybody; an error says why nobody could be tried.
pub(super) fn all(settings: &Settings) -> Result<Vec<Reached>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    let reached = runtime.block_on(reach::all(settings));
    runtime.shutdown_background();
    Ok(reached)
}

/// One line for each, for people.
pub(super) fn table(reached: &[Reached]) -> String {
    let width = |of: fn(&Reached) -> &str| reached.iter().map(|reached| of(reached).len()).max().unwrap_or(0);
    let (table, address) = (width(|reached| &reached.table), width(|reached| &reached.address));
    let line = |reached: &Reached| {
        let (word, what) = match &reached.outcome {
            Ok(what) => ("ok   ", what),
            Err(why) => ("FAILS", why),
        };
        let milliseconds = reached.took.as_secs_f64() * 1e3;
        format!(
            "{word}  {:<table$}  {:<address$}  {milliseconds:>8.1} ms  {what}\n",
            reached.table, reached.address
        )
    };
    let away = reached.iter().filter(|reached| reached.outcome.is_err()).count();
    let all = reached.len();
    reached.iter().map(line).collect::<String>() + &format!("{} of {all} reached\n", all - away)
}

/// The same for programs.
pub(super) fn object(reached: &Reached) -> Value {
    json!({
        "table": reached.table,
        "address": reached.address,
        "ok": reached.outcome.is_ok(),
        "detail": match &reached.outcome { Ok(what) | Err(what) => what },
        "milliseconds": reached.took.as_secs_f64() * 1e3,
    })
}
