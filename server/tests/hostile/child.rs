//! The server as a child process, so that an abort is seen, and what the kernel says about it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{FlightInfo, Ticket};
use featureflight_server::demo::warehouse::{Scale, Warehouse};
use futures::TryStreamExt;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// `featureflight serve` until it is dropped.
pub(crate) struct Child {
    process: std::process::Child,
    pub address: String,
    /// Of the HTTP port.
    watched_at: String,
    pub home: tempfile::TempDir,
    unread: Arc<AtomicBool>,
}

impl Child {
    /// Over a small sample warehouse. `settings` are configuration keys, `ENGINE__MEMORY_LIMIT`, and their values.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let scale = Scale {
            customers: 200,
            days: 1,
        };
        Warehouse::open_or_make(&home.path().join("warehouse"), scale, &mut |_| {
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        Self::serve(home, &[], settings)
    }

    /// Over an empty warehouse that it owns.
    pub(crate) fn start_owner(settings: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        for folder in ["feature-groups", "s3"] {
            std::fs::create_dir_all(home.path().join("warehouse").join(folder)).unwrap();
        }
        Self::serve(home, &["--own"], settings)
    }

    fn serve(home: tempfile::TempDir, flags: &[&str], settings: &[(&str, &str)]) -> Self {
        let spill = home.path().join("spill");
        std::fs::create_dir(&spill).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_featureflight"));
        command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(["--http-listen", "127.0.0.1:0", "--warehouse"])
            .arg(home.path().join("warehouse"))
            .args(flags)
            .env("FEATUREFLIGHT__ENGINE__SPILL_DIRECTORY", &spill)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        for (key, value) in settings {
            command.env(format!("FEATUREFLIGHT__{key}"), value);
        }
        let mut process = command.spawn().unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let (sender, address) = mpsc::channel();
        let unread = Arc::new(AtomicBool::new(false));
        let stop_reading = Arc::clone(&unread);
        // Reads to the end, so that the log never fills its pipe.
        std::thread::spawn(move || {
            let mut watched_at = String::new();
            for line in lines.map_while(Result::ok) {
                if stop_reading.load(Ordering::Relaxed) {
                    return;
                }
                if let Some((_, address)) = line.split_once("health on http://") {
                    address.trim().clone_into(&mut watched_at);
                }
                if let Some((_, address)) = line.split_once("listening on grpc://") {
                    let _ = sender.send((address.trim().to_owned(), watched_at.clone()));
                }
                if std::env::var_os("FEATUREFLIGHT_TEST_LOG").is_some() {
                    eprintln!("{line}");
                }
            }
        });
        let (address, watched_at) = address.recv_timeout(Duration::from_secs(60)).unwrap();
        Self {
            process,
            address,
            watched_at,
            home,
            unread,
        }
    }

    /// Closes the reading end of its log at the next line.
    pub(crate) fn leave_its_log_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Asks it to end, and whether it does.
    pub(crate) async fn ends_when_asked(&mut self) -> bool {
        let pid = self.process.id().to_string();
        Command::new("kill").arg(pid).status().unwrap();
        for _ in 0..200 {
            if self.process.try_wait().unwrap().is_some() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        false
    }

    pub(crate) async fn connect(&self) -> Client {
        let url = format!("http://{}", self.address);
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        Client(FlightSqlServiceClient::new(channel))
    }

    /// Fails unless the process runs and answers a newcomer, who tries again when he is told to.
    pub(crate) async fn assert_well(&mut self, after: &str) {
        if let Some(status) = self.process.try_wait().unwrap() {
            panic!("{after}: the process ended: {status}");
        }
        let answer = async {
            let mut client = self.connect().await;
            loop {
                match client.rows("SELECT 1").await {
                    Err(status) if status.message().contains("try again in") => {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    answer => return answer,
                }
            }
        };
        let answer = tokio::time::timeout(Duration::from_secs(30), answer).await;
        let rows = answer
            .unwrap_or_else(|_| panic!("{after}: nobody else is answered"))
            .unwrap_or_else(|status| panic!("{after}: {status}"));
        assert_eq!(rows, 1, "{after}");
    }

    pub(crate) fn resident_bytes(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most since [`Child::forget_peak`].
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.status("VmHWM:")
    }

    pub(crate) fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.process.id()), "5").unwrap();
    }

    pub(crate) fn threads(&self) -> usize {
        entries(Path::new(&format!("/proc/{}/task", self.process.id())))
    }

    /// For who reads why a test failed.
    pub(crate) fn thread_names(&self) -> Vec<String> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        threads
            .flatten()
            .filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok())
            .collect()
    }

    /// Of queries and of the server, as its metrics say.
    pub(crate) fn tasks(&self) -> usize {
        let mut stream = TcpStream::connect(&self.watched_at).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let samples = answer
            .lines()
            .filter(|line| line.starts_with("featureflight_tasks{"));
        let counts = samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
        let counts: Vec<_> = counts.collect();
        assert_eq!(counts.len(), 2, "{answer}");
        counts.iter().sum::<f64>() as usize
    }

    pub(crate) fn open_files(&self) -> usize {
        entries(Path::new(&format!("/proc/{}/fd", self.process.id())))
    }

    /// What each of them is, for who reads why a test failed.
    pub(crate) fn open_paths(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap();
        let mut paths: Vec<_> = files
            .flatten()
            .filter_map(|file| std::fs::read_link(file.path()).ok())
            .collect();
        paths.sort();
        paths
    }

    /// Files below the spill directory.
    pub(crate) fn spill_files(&self) -> usize {
        fn count(directory: &Path) -> usize {
            let Ok(entries) = std::fs::read_dir(directory) else {
                return 0;
            };
            let paths = entries.flatten().map(|entry| entry.path());
            paths
                .map(|path| if path.is_dir() { count(&path) } else { 1 })
                .sum()
        }
        count(&self.home.path().join("spill"))
    }

    fn status(&self, key: &str) -> u64 {
        let status = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kilobytes * 1024
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn entries(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

/// A Flight SQL client whose errors are statuses.
#[derive(Clone)]
pub(crate) struct Client(pub FlightSqlServiceClient<Channel>);

impl Client {
    /// How many rows `sql` has, all of them read.
    pub(crate) async fn rows(&mut self, sql: &str) -> Result<usize, Status> {
        let batches = self.batches(sql).await?;
        Ok(batches.iter().map(RecordBatch::num_rows).sum())
    }

    pub(crate) async fn batches(&mut self, sql: &str) -> Result<Vec<RecordBatch>, Status> {
        let info = self.0.execute(sql.to_owned(), None).await;
        let info = info.map_err(flight_status)?;
        self.fetch(&info).await
    }

    pub(crate) async fn fetch(&mut self, info: &FlightInfo) -> Result<Vec<RecordBatch>, Status> {
        self.fetch_ticket(info.endpoint[0].ticket.clone().unwrap())
            .await
    }

    pub(crate) async fn fetch_ticket(
        &mut self,
        ticket: Ticket,
    ) -> Result<Vec<RecordBatch>, Status> {
        let batches = self.0.do_get(ticket).await.map_err(flight_status)?;
        batches.try_collect().await.map_err(flight_status)
    }
}

fn status(error: ArrowError) -> Status {
    match error {
        ArrowError::ExternalError(inner) => match inner.downcast::<FlightError>() {
            Ok(error) => flight_status(*error),
            Err(error) => match error.downcast::<Status>() {
                Ok(status) => *status,
                Err(error) => unknown(&error.to_string()),
            },
        },
        other => unknown(&other.to_string()),
    }
}

/// The status inside an error of arrow-flight's client.
pub(crate) fn flight_status(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        FlightError::Arrow(error) => status(error),
        other => unknown(&other.to_string()),
    }
}

#[allow(clippy::disallowed_methods, reason = "this is a client")]
fn unknown(message: &str) -> Status {
    Status::new(Code::Unknown, message)
}
