//! The binary itself as a process of its own: for signals, exit codes, memory and limits of the system.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::net::unix::pipe;

use super::client::get_admin;
use super::{own_ip, within};

/// `tracegate run`. It is killed when it drops.
pub struct Process {
    /// Where the listener `public` is.
    pub address: SocketAddr,
    /// Where the admin pages are.
    pub admin: SocketAddr,
    child: Child,
    log: Lines<BufReader<pipe::Receiver>>,
    directory: TempDir,
}

impl Process {
    /// Runs this text. `limit` is how many files it may have open.
    pub async fn start(text: &str, limit: Option<u32>) -> Self {
        Self::start_beside(text, &[], limit).await
    }

    /// The same, with these files beside `routes.toml`: name and text.
    pub async fn start_beside(text: &str, files: &[(&str, &str)], limit: Option<u32>) -> Self {
        let limit = limit.map(|files| format!("ulimit -n {files}; ")).unwrap_or_default();
        Self::spawn(text, files, SocketAddr::new(own_ip(), 9000), &limit, Stdio::null(), &[]).await
    }

    /// Runs this text. It may have so many files open, and more if it asks for them.
    pub async fn start_with_soft_limit(text: &str, files: u32) -> Self {
        let limit = format!("ulimit -S -n {files}; ");
        Self::spawn(text, &[], SocketAddr::new(own_ip(), 9000), &limit, Stdio::null(), &[]).await
    }

    /// Runs this text, and keeps what was good in this file beside it.
    pub async fn start_keeping(text: &str, last_good: &str) -> Self {
        let address = SocketAddr::new(own_ip(), 9000);
        Self::spawn(text, &[], address, "", Stdio::null(), &["--last-good", last_good]).await
    }

    /// Runs the same files again, with these arguments, after it has ended.
    pub async fn restart(&mut self, arguments: &[&str]) {
        self.spawn_again(arguments);
        listens(&[self.admin, self.address]).await;
    }

    /// The same, whether or not it comes to listen.
    pub fn spawn_again(&mut self, arguments: &[&str]) {
        (self.child, self.log) = spawn(&self.directory, "", Stdio::null(), arguments);
    }

    /// Where this file beside `routes.toml` is.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// Runs this text with the listener `public` at this address, where others may listen, too.
    pub async fn start_at(text: &str, address: SocketAddr) -> Self {
        Self::spawn(text, &[], address, "", Stdio::null(), &[]).await
    }

    /// Runs this text on a socket that listens already, handed over as the listener `public`.
    pub async fn start_on(text: &str, socket: &TcpListener) -> Self {
        let handed = "export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=public; exec 3<&0 </dev/null; ";
        let address = socket.local_addr().unwrap();
        let socket = OwnedFd::from(socket.try_clone().unwrap());
        Self::spawn(text, &[], address, handed, socket.into(), &[]).await
    }

    /// Runs this text, with these files beside it, after these commands of the shell.
    async fn spawn(
        text: &str,
        files: &[(&str, &str)],
        address: SocketAddr,
        commands: &str,
        input: Stdio,
        arguments: &[&str],
    ) -> Self {
        let admin = SocketAddr::new(own_ip(), 9901);
        let directory = tempfile::tempdir().unwrap();
        let base = format!(
            "[listeners.public]\naddress = '{address}'\n[admin]\naddress = '{admin}'\n\
             [shutdown]\ndrain_delay = '1ms'\n[telemetry]\notlp = 'off'\n"
        );
        std::fs::write(directory.path().join("base.toml"), base).unwrap();
        for (name, text) in files.iter().chain(&[("routes.toml", text)]) {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let (child, log) = spawn(&directory, commands, input, arguments);
        // another process may listen at the other address already
        listens(&[admin, address]).await;
        Self { address, admin, child, log, directory }
    }

    /// Replaces `routes.toml` by this text in one step.
    pub fn replace(&self, text: &str) {
        self.write("routes.toml.new", text);
        let place = |name: &str| self.directory.path().join(name);
        std::fs::rename(place("routes.toml.new"), place("routes.toml")).unwrap();
    }

    /// Writes this file beside `routes.toml`.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).unwrap();
    }

    /// Its status, as soon as it satisfies this.
    pub async fn status_when(&self, what: &str, satisfied: impl Fn(&Value) -> bool) -> Value {
        let asked = async {
            loop {
                let status = get_admin(self.admin, "/status").await.json();
                if satisfied(&status) {
                    return status;
                }
            }
        };
        within(what, asked).await
    }

    /// What the kernel tells everybody of it under this name, such as `cmdline`.
    pub fn kernel(&self, name: &str) -> String {
        let bytes = std::fs::read(format!("/proc/{}/{name}", self.child.id())).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Sends this signal.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// The next line of the access log, which is all that standard output has.
    pub async fn logged(&mut self) -> Value {
        let line = within("a line on standard output", self.log.next_line()).await.unwrap().unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// The exit code, once it has ended; what it still logs is dropped.
    pub async fn ended(&mut self) -> Option<i32> {
        self.counted().await.0
    }

    /// The exit code, once it has ended, and how many lines it still logged.
    pub async fn counted(&mut self) -> (Option<i32>, u64) {
        let closed = async {
            let mut lines = 0;
            while let Ok(Some(_)) = self.log.next_line().await {
                lines += 1;
            }
            lines
        };
        let lines = within("the end of the process", closed).await;
        (self.child.wait().unwrap().code(), lines)
    }

    /// What it has said of itself so far.
    pub fn diagnostics(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("diagnostics")).unwrap()
    }

    /// The most memory it has ever had resident, in KiB.
    pub fn peak_memory(&self) -> u64 {
        self.memory_line("VmHWM:")
    }

    /// The memory it has resident, in KiB.
    pub fn memory(&self) -> u64 {
        self.memory_line("VmRSS:")
    }

    fn memory_line(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// The files it has open.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}

/// Runs the files of this directory.
fn spawn(
    directory: &TempDir,
    commands: &str,
    input: Stdio,
    arguments: &[&str],
) -> (Child, Lines<BufReader<pipe::Receiver>>) {
    let diagnostics = directory.path().join("diagnostics");
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(format!("{commands}exec \"$0\" run --config base.toml --config routes.toml \"$@\""))
        .arg(env!("CARGO_BIN_EXE_tracegate"))
        .args(arguments)
        .current_dir(directory.path())
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(std::fs::OpenOptions::new().create(true).append(true).open(diagnostics).unwrap())
        .spawn()
        .unwrap();
    let output = OwnedFd::from(child.stdout.take().unwrap());
    let log = BufReader::new(pipe::Receiver::from_owned_fd(output).unwrap()).lines();
    (child, log)
}

/// Waits until somebody listens at all of these.
async fn listens(addresses: &[SocketAddr]) {
    let up = async {
        for address in addresses {
            while TcpStream::connect(address).await.is_err() {
                tokio::task::yield_now().await;
            }
        }
    };
    within("the process to listen", up).await;
}

impl Drop for Process {
    fn drop(&mut self) {
        // it may have ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
