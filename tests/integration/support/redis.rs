//! Real Redis servers for tests: each on a free port, in a directory of its own, killed by its process id.

use std::{
    fs,
    io::Write,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// The file with the clock of a server whose clock is wrong.
const CLOCK: &str = "clock";

/// A port that nobody listens on, below those that the kernel gives to outgoing connections, so that a server can come back
/// on it. Another server may take it before we do, so starting tries several.
pub(crate) fn free_port() -> u16 {
    let mut ports = (0..200).map(|_| rand::random_range(12_000..32_000));
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

/// A running `redis-server` (or `redis-sentinel`).
#[derive(Debug)]
pub(crate) struct RedisServer {
    child: Child,
    port: u16,
    dir: TempDir,
    program: &'static str,
    config: PathBuf,
    tls: bool,
    /// By how much its clock is wrong at the start, as faketime reads it.
    clock: Option<&'static str>,
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // Only while the process is ours: its id may be another's after that.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal("CONT");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl RedisServer {
    /// A plain server without persistence.
    pub(crate) fn start() -> Self {
        Self::with("save \"\"\n")
    }

    /// A server whose clock is wrong, for example by `-60s`.
    pub(crate) fn with_clock(clock: &'static str) -> Self {
        Self::run_by("redis-server", "save \"\"\n", false, Some(clock))
    }

    /// Sets the clock of a server that was made by [`RedisServer::with_clock`].
    pub(crate) fn set_clock(&self, clock: &str) {
        fs::write(self.dir.path().join(CLOCK), clock).expect("a clock");
    }

    /// A server with these lines in its configuration. `{dir}` stands for its directory, `{port}` for its port.
    pub(crate) fn with(lines: &str) -> Self {
        Self::run("redis-server", lines, false)
    }

    /// A server that speaks TLS only, with certificates made by [`certificates`].
    pub(crate) fn with_tls(certificates: &Path) -> Self {
        let dir = certificates.display();
        let lines = format!(
            "save \"\"\ntls-port {{port}}\ntls-cert-file {dir}/server.pem\ntls-key-file {dir}/server.key\n\
             tls-ca-cert-file {dir}/ca.pem\ntls-auth-clients optional\n"
        );
        Self::run("redis-server", &lines, true)
    }

    /// A server of the version that is upgraded from: `CARILLON_TEST_OLDER_REDIS` names its program, where it is another.
    pub(crate) fn older(lines: &str) -> Self {
        static OLDER: LazyLock<String> = LazyLock::new(|| {
            let given = std::env::var_os("CARILLON_TEST_OLDER_REDIS");
            given.map_or_else(|| "redis-server".into(), |path| path.to_string_lossy().into_owned())
        });
        Self::run(&OLDER, lines, false)
    }

    /// A sentinel that watches `master` under the name `mymaster`.
    pub(crate) fn sentinel(master: u16, quorum: u8) -> Self {
        Self::sentinel_with(master, quorum, "")
    }

    /// A server that speaks TLS only, with all of its configuration but its directory in these lines.
    pub(crate) fn with_tls_lines(lines: &str) -> Self {
        Self::run("redis-server", lines, true)
    }

    /// A sentinel with these lines in its configuration behind the usual ones.
    pub(crate) fn sentinel_with(master: u16, quorum: u8, lines: &str) -> Self {
        let lines = format!(
            "sentinel monitor mymaster 127.0.0.1 {master} {quorum}\nsentinel down-after-milliseconds mymaster 1000\n\
             sentinel failover-timeout mymaster 5000\n{lines}"
        );
        Self::run("redis-sentinel", &lines, false)
    }

    fn run(program: &'static str, lines: &str, tls: bool) -> Self {
        Self::run_by(program, lines, tls, None)
    }

    fn run_by(program: &'static str, lines: &str, tls: bool, clock: Option<&'static str>) -> Self {
        for _ in 0..20 {
            let dir = tempfile::Builder::new().prefix("carillon-redis-").tempdir().expect("a directory");
            let port = free_port();
            let plain = if tls { 0 } else { port };
            let text = format!(
                "bind 127.0.0.1\nport {plain}\ndir {}\nenable-debug-command yes\n",
                dir.path().display()
            );
            let text = if program == "redis-sentinel" {
                text.replace("enable-debug-command yes\n", "")
            } else {
                text
            };
            let lines = lines
                .replace("{dir}", &dir.path().display().to_string())
                .replace("{port}", &port.to_string());
            let config = dir.path().join("redis.conf");
            fs::write(&config, text + &lines).expect("a configuration");
            let child = spawn(program, &config, dir.path(), clock);
            let mut server = Self { child, port, dir, program, config, tls, clock };
            if server.wait_until_listening() {
                return server;
            }
        }
        panic!("redis-server did not start on any port");
    }

    fn wait_until_listening(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if let Ok(Some(_)) = self.child.try_wait() {
                return false;
            }
            if self.is_listening() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// Whether it is our process that answers: another one may have the port.
    fn is_listening(&self) -> bool {
        if self.tls {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            return log.contains("Ready to accept connections");
        }
        let answer = try_command(self.port, &["INFO", "server"]).unwrap_or_default();
        answer.contains(&format!("process_id:{}", self.child.id()))
            || ["NOAUTH", "unknown command"].iter().any(|refusal| answer.contains(refusal))
    }

    /// Where it listens on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The file that it was started with.
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    /// `127.0.0.1:<port>`
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `redis://127.0.0.1:<port>`
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sends a command and returns the answer, lists flattened to lines. Panics where there is none.
    pub(crate) fn command(&self, args: &[&str]) -> String {
        try_command(self.port, args).unwrap_or_else(|e| panic!("{args:?}: {e}"))
    }

    /// A number in INFO.
    pub(crate) fn info(&self, section: &str, field: &str) -> String {
        let answer = self.command(&["INFO", section]);
        let line = answer.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    }

    /// How often a command was called.
    pub(crate) fn calls(&self, command: &str) -> u64 {
        let stats = self.info("commandstats", &format!("cmdstat_{command}"));
        let calls = stats.split(',').next().and_then(|first| first.strip_prefix("calls=")?.parse().ok());
        calls.unwrap_or(0)
    }

    /// Stops the process where it stands (SIGSTOP).
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let _ = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status();
    }

    /// Kills it (SIGKILL). [`RedisServer::revive`] starts it again.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on the same port, with what it had saved.
    pub(crate) fn revive(&mut self) {
        self.child = spawn(self.program, &self.config, self.dir.path(), self.clock);
        assert!(self.wait_until_listening(), "redis-server did not come back on its port");
    }

    /// Kills and starts it again without data.
    pub(crate) fn restart_empty(&mut self) {
        self.kill();
        for name in ["dump.rdb", "appendonlydir"] {
            let path = self.dir.path().join(name);
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
        self.revive();
    }
}

fn spawn(program: &str, config: &Path, dir: &Path, clock: Option<&str>) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).expect("a log");
    let mut command = Command::new(program);
    if let Some(clock) = clock {
        // Redis' own allocator asks for the time before libfaketime is ready to answer: glibc's takes its place.
        let lib = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
        assert!(Path::new(&lib).exists(), "{lib} is missing: install faketime");
        fs::write(dir.join(CLOCK), clock).expect("a clock");
        command.env("LD_PRELOAD", format!("libc_malloc_debug.so.0:{lib}"));
        // Read anew with every look at the time.
        command.env("FAKETIME_TIMESTAMP_FILE", dir.join(CLOCK)).env("FAKETIME_NO_CACHE", "1");
    }
    let spawned =
        command.arg(config).stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log).spawn();
    spawned.unwrap_or_else(|error| {
        panic!("{program} could not be started ({error}): the tests need Redis 7 or later, on Debian: apt-get install redis-server redis-sentinel")
    })
}

/// One command on a connection of its own.
fn try_command(port: u16, args: &[&str]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut request = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        request.extend(format!("${}\r\n{arg}\r\n", arg.len()).bytes());
    }
    stream.write_all(&request)?;
    let mut reader = std::io::BufReader::new(stream);
    let mut out = String::new();
    read_answer(&mut reader, &mut out)?;
    Ok(out)
}

fn read_answer(reader: &mut impl std::io::BufRead, out: &mut String) -> std::io::Result<()> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let (kind, rest) = line.trim_end().split_at(1);
    match kind {
        "$" if rest != "-1" => {
            let mut bytes = vec![0; rest.parse::<usize>().expect("a length") + 2];
            reader.read_exact(&mut bytes)?;
            out.push_str(&String::from_utf8_lossy(&bytes[..bytes.len() - 2]));
            out.push('\n');
        }
        "*" => {
            for _ in 0..rest.parse::<i64>().expect("a length").max(0) {
                read_answer(reader, out)?;
            }
        }
        _ => {
            out.push_str(rest);
            out.push('\n');
        }
    }
    Ok(())
}

/// An authority and a server's and a client's certificate for 127.0.0.1, made by openssl.
pub(crate) fn certificates() -> TempDir {
    certificates_for("IP:127.0.0.1,DNS:localhost")
}

/// The same for other names, as openssl writes them: `DNS:name,IP:address`.
pub(crate) fn certificates_for(names: &str) -> TempDir {
    let dir = tempfile::Builder::new().prefix("carillon-tls-").tempdir().expect("a directory");
    let script = "set -e
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-authority -keyout ca.key -out ca.pem \
            -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
        for name in server client; do
            openssl req -newkey rsa:2048 -nodes -subj /CN=$name -keyout $name.key -out $name.csr
            printf 'subjectAltName=%s\\nbasicConstraints=CA:FALSE' $NAMES > ext
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out $name.pem
        done";
    let mut making = Command::new("sh");
    let output = making.args(["-c", script]).env("NAMES", names).current_dir(dir.path()).output();
    let output = output.expect("openssl");
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    dir
}

/// Waits for something that has no other way of telling, with a deadline.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
