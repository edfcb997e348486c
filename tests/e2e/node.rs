//! The `ringproof` process: started on a directory of its own, killed when dropped.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{JoinHandle, spawn};

use parking_lot::Mutex;
use rusqlite::Connection;

use crate::config::{Config, key};
use crate::http::{Api, get};
use crate::wait::until;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_ringproof");

/// A directory that is removed when dropped, unless its test fails.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ringproof-e2e-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept: {}", self.0.display());
        } else {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// A child process and what it has printed. It is killed when dropped.
pub struct Process {
    child: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    /// Whether the readers are to let their ends of the pipes go.
    deaf: Arc<AtomicBool>,
}

impl Process {
    pub fn spawn(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdout, stderr, deaf) = (Arc::default(), Arc::default(), Arc::default());
        let readers = vec![
            read(child.stdout.take().unwrap(), Arc::clone(&stdout), Arc::clone(&deaf)),
            read(child.stderr.take().unwrap(), Arc::clone(&stderr), Arc::clone(&deaf)),
        ];
        Self { child, stdout, stderr, readers, deaf }
    }

    /// Waits for its end; gives the exit code, which a signal does not leave.
    pub async fn exit_code(&mut self) -> Option<i32> {
        let status = until("the end of the process", async || self.child.try_wait().unwrap()).await;
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        status.code()
    }

    pub fn stdout(&self) -> String {
        self.stdout.lock().clone()
    }

    pub fn stderr(&self) -> String {
        self.stderr.lock().clone()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status();
        assert!(sent.unwrap().success());
    }

    /// Closes the reading ends of its output, each when the next line comes.
    pub fn stop_reading(&self) {
        self.deaf.store(true, Ordering::SeqCst);
    }

    /// `kill -9`, and nothing of it runs when this returns.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let stderr = self.stderr();
            let lines: Vec<&str> = stderr.lines().rev().take(20).collect();
            let tail: Vec<&str> = lines.into_iter().rev().collect();
            eprintln!("stdout:\n{}\nstderr ends with:\n{}", self.stdout(), tail.join("\n"));
        }
    }
}

fn read(stream: impl Read + Send + 'static, text: Arc<Mutex<String>>, deaf: Arc<AtomicBool>) -> JoinHandle<()> {
    spawn(move || {
        let mut lines = BufReader::new(stream);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            text.lock().push_str(&String::from_utf8_lossy(&line));
            line.clear();
            if deaf.load(Ordering::SeqCst) {
                break;
            }
        }
    })
}

/// A node that serves.
pub struct Node {
    pub process: Process,
    pub config: Config,
    /// UDP listeners.
    pub sip: Vec<SocketAddr>,
    /// TCP listeners.
    pub tcp: Vec<SocketAddr>,
    /// All of them, as the process prints them.
    listening: Vec<String>,
    pub api: SocketAddr,
    pub admin: SocketAddr,
    /// What earlier processes of this node have printed.
    printed: String,
    // Last, so that the process is gone before its files.
    directory: Directory,
}

impl Node {
    /// Starts a node and waits until it is ready.
    pub async fn start(config: Config) -> Self {
        Self::start_with(config, serve).await
    }

    /// As [`Node::start`]. `command` gives what to run in a directory that holds `config.toml`.
    pub async fn start_with(config: Config, command: impl FnOnce(&Path) -> Command) -> Self {
        let directory = Directory::new();
        fs::write(directory.0.join("config.toml"), config.text(&[])).unwrap();
        let process = Process::spawn(command(&directory.0).env("RINGPROOF_LOG", config.log));
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut node = Self {
            process,
            config,
            sip: Vec::new(),
            tcp: Vec::new(),
            listening: Vec::new(),
            api: unknown,
            admin: unknown,
            printed: String::new(),
            directory,
        };
        node.wait_ready().await;
        node
    }

    /// Starts it again on the same data and SIP ports, after its end.
    pub async fn restart(&mut self) {
        fs::write(self.directory.0.join("config.toml"), self.config.text(&self.listening)).unwrap();
        let fresh = Process::spawn(serve(&self.directory.0).env("RINGPROOF_LOG", self.config.log));
        let old = std::mem::replace(&mut self.process, fresh);
        self.printed.push_str(&old.stdout());
        self.printed.push_str(&old.stderr());
        self.wait_ready().await;
    }

    async fn wait_ready(&mut self) {
        let printed = until("ready", async || {
            let stdout = self.process.stdout();
            if stdout.lines().any(|line| line == "ready") {
                return Some(stdout);
            }
            assert!(self.process.is_running(), "the process ended before it was ready");
            None
        })
        .await;
        let listeners = |name: &str| -> Vec<String> {
            let of_name = |line: &str| {
                let url = line.strip_prefix("listening")?.trim_start().strip_prefix(name)?;
                Some(url.trim().to_owned())
            };
            printed.lines().filter_map(of_name).collect()
        };
        let addresses = |listeners: &[String], scheme: &str| -> Vec<SocketAddr> {
            listeners.iter().filter_map(|url| Some(url.strip_prefix(scheme)?.parse().unwrap())).collect()
        };
        self.listening = listeners("sip");
        self.sip = addresses(&self.listening, "udp://");
        self.tcp = addresses(&self.listening, "tcp://");
        // http:// or https://
        let http = |name: &str| -> SocketAddr { listeners(name)[0].split_once("://").unwrap().1.parse().unwrap() };
        (self.api, self.admin) = (http("api"), http("admin"));
    }

    /// The first UDP listener.
    pub fn sip(&self) -> SocketAddr {
        self.sip[0]
    }

    /// The API as the application `demo` sees it.
    pub fn api(&self) -> Api {
        self.api_of(&key("demo"))
    }

    /// The API with this key.
    pub fn api_of(&self, key: &str) -> Api {
        Api::new(self.api, key)
    }

    /// The sum of a counter or gauge over all samples whose labels hold each of `labels`, such as `reason="no_via"`.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        let answer = get(self.admin, "/metrics").await;
        assert_eq!(answer.status, 200);
        let text = answer.text();
        let samples = text.lines().filter_map(|line| {
            let (sample, value) = line.rsplit_once(' ')?;
            let (found, rest) = sample.split_once('{').unwrap_or((sample, ""));
            (found == name && labels.iter().all(|label| rest.contains(label))).then(|| value.parse::<u64>().unwrap())
        });
        samples.sum()
    }

    /// Waits until every event has been delivered.
    pub async fn all_delivered(&self) {
        until("an empty backlog", async || (self.metric("ringproof_webhook_backlog", &[]).await == 0).then_some(()))
            .await;
    }

    /// The database. Meant for while the process is down.
    pub fn database(&self) -> Connection {
        Connection::open(self.directory.0.join("data").join("ringproof.db")).unwrap()
    }

    /// The directory in which it runs.
    pub fn directory(&self) -> &Path {
        &self.directory.0
    }

    /// Everything that this node has printed since its first start.
    pub fn printed(&self) -> String {
        format!("{}{}{}", self.printed, self.process.stdout(), self.process.stderr())
    }
}

/// `ringproof serve` in `directory`.
pub fn serve(directory: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "-c", "config.toml"]).current_dir(directory);
    command
}
