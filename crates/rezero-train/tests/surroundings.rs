//! What surrounds a run: signals, paths of any bytes, prompts.
#![cfg(unix)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{cifar_layout, rezero, rows, scratch};

/// A run of some seconds on generated text, begun by `shell`, which gets the program's command line as `"$@"`.
fn begin(dir: &Path, shell: &str, more: &[&str]) -> Child {
    let mut args = vec![
        "train",
        "enwik8-tiny",
        "data=wiki-like",
        "depth=2",
        "batch=2",
        "steps=4000",
    ];
    args.extend([
        "eval_every=4000",
        "valid_items=64",
        "log_every=1",
        "--run-dir",
        "run",
        "--plain",
    ]);
    args.extend(more);
    let program = rezero(dir, &args);
    Command::new("bash")
        .args(["-c", shell, "bash"])
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(dir.join("said")).unwrap())
        .spawn()
        .unwrap()
}

/// Waits until the run has taken some steps.
fn running(dir: &Path) {
    let limit = Instant::now() + Duration::from_secs(120);
    let metrics = dir.join("run/metrics.jsonl");
    while std::fs::read_to_string(&metrics)
        .unwrap_or_default()
        .lines()
        .count()
        < 5
    {
        assert!(Instant::now() < limit, "the run does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn send(signal: &str, child: &Child) {
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args([signal, &pid])
            .status()
            .unwrap()
            .success()
    );
}

fn checkpoints(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("run/checkpoints")).map_or(0, Iterator::count)
}

#[test]
fn a_repeated_sigterm_changes_nothing_and_exits_143_with_a_checkpoint() {
    for (signal, status) in [("-TERM", 143), ("-HUP", 129)] {
        let dir = scratch();
        let mut child = begin(dir.path(), "exec \"$@\"", &[]);
        running(dir.path());
        for _ in 0..3 {
            send(signal, &child);
            std::thread::sleep(Duration::from_millis(2));
        }
        let ended = child.wait().unwrap();
        assert_eq!(ended.code(), Some(status), "{signal}: {ended:?}");
        assert_eq!(checkpoints(dir.path()), 1, "{signal}");
        let said = std::fs::read_to_string(dir.path().join("said")).unwrap();
        assert!(
            said.contains("stopped at step") && said.contains("rezero train run --resume"),
            "{said}"
        );
        assert!(!said.contains("error:"), "{said}");
    }
}

#[test]
fn a_second_ctrl_c_stops_at_once() {
    let dir = scratch();
    let mut child = begin(dir.path(), "exec \"$@\"", &[]);
    running(dir.path());
    send("-INT", &child);
    send("-INT", &child);
    // Two signals in the time of one step may arrive as one.
    std::thread::sleep(Duration::from_millis(1));
    let _ = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn ignored_signals_stay_ignored_and_finish_goes_on() {
    for (shell, more, signal) in [
        ("trap '' HUP; exec \"$@\"", &["steps=300"][..], "-HUP"),
        ("trap '' INT; exec \"$@\"", &["steps=300"], "-INT"),
        (
            "exec \"$@\"",
            &["steps=300", "--on-term", "finish"],
            "-TERM",
        ),
    ] {
        let dir = scratch();
        let mut child = begin(dir.path(), shell, more);
        running(dir.path());
        send(signal, &child);
        let ended = child.wait().unwrap();
        assert_eq!(
            (ended.code(), ended.signal()),
            (Some(0), None),
            "{shell} {signal}"
        );
        assert_eq!(rows(&dir.path().join("run")).last().unwrap().step, 300);
    }
}

#[test]
fn a_run_whose_directory_is_removed_ends_with_an_error() {
    let dir = scratch();
    let mut child = begin(dir.path(), "exec \"$@\"", &["checkpoint_every=50"]);
    running(dir.path());
    std::fs::rename(dir.path().join("run"), dir.path().join("moved")).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let said = std::fs::read_to_string(dir.path().join("said")).unwrap();
    assert!(said.contains("was removed or renamed"), "{said}");
    assert!(!dir.path().join("run").exists());
}

#[test]
fn an_import_that_cannot_be_written_leaves_its_directory_free() {
    let dir = scratch();
    let here = dir.path();
    let train =
        "train enwik8-tiny data=wiki-like depth=2 steps=1 valid_items=64 batch=2 --run-dir run";
    let import = "import m.safetensors enwik8-tiny depth=2 --run-dir imported";
    let call = |words: &str| rezero(here, &words.split(' ').collect::<Vec<_>>());
    assert!(call(train).output().unwrap().status.success());
    assert!(
        call("export run --out m.safetensors")
            .output()
            .unwrap()
            .status
            .success()
    );
    // The size of files is limited, in blocks of 512 bytes.
    let limited = call(import);
    let shell = "ulimit -f 100; exec \"$@\"";
    let mut command = Command::new("bash");
    command
        .args(["-c", shell, "bash"])
        .arg(limited.get_program());
    let output = command
        .args(limited.get_args())
        .current_dir(here)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("free some space"), "{said}");
    let output = call(import).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// A proxy that refuses every connection. It returns the first lines of the requests.
#[cfg(feature = "download")]
fn refusing_proxy() -> (String, std::sync::mpsc::Receiver<String>) {
    use std::io::{BufRead, BufReader, Write};

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, requests) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<String> = lines
                .map_while(Result::ok)
                .take_while(|l| !l.is_empty())
                .collect();
            let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
            if sender
                .send(head.first().cloned().unwrap_or_default())
                .is_err()
            {
                return;
            }
        }
    });
    (address, requests)
}

#[cfg(feature = "download")]
#[test]
fn downloads_go_through_the_proxy_and_trust_the_certificates_of_the_system() {
    let dir = scratch();
    let (proxy, requests) = refusing_proxy();
    let fetch = |more: &[&str], variables: &[(&str, &str)]| {
        let mut command = rezero(dir.path(), &["fetch", "enwik8", "--data-dir", "data"]);
        command
            .args(more)
            .env("https_proxy", &proxy)
            .env_remove("SSL_CERT_FILE");
        let output = command.envs(variables.iter().copied()).output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = fetch(&["--url", "https://data.example/enwik8.zip"], &[]);
    let asked: Vec<String> = requests.try_iter().collect();
    assert!(
        asked[0].starts_with("CONNECT data.example:443 "),
        "{asked:?}"
    );
    assert!(
        asked.iter().all(|line| line.starts_with("CONNECT ")),
        "{asked:?}"
    );
    assert!(said.contains("CONNECT proxy failed"), "{said}");

    // A server with a certificate of an authority that only the company knows.
    let openssl = |words: &str| {
        let mut command = Command::new("openssl");
        command.args(words.split(' ')).current_dir(dir.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    };
    let new = "-newkey rsa:2048 -nodes -subj";
    let name = "subjectAltName=DNS:localhost";
    let made = [
        format!("req -x509 {new} /CN=Company -keyout ca.key -out ca.pem -days 2"),
        format!("req {new} /CN=localhost -addext {name} -keyout own.key -out own.csr"),
        "x509 -req -copy_extensions copyall -in own.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out \
         own.pem -days 2"
            .to_owned(),
    ];
    let made = made
        .iter()
        .all(|words| openssl(words).status().is_ok_and(|s| s.success()));
    if !made {
        eprintln!("left out: openssl is not here");
        return;
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    std::fs::write(dir.path().join("enwik8.zip"), "not it").unwrap();
    let words = format!("s_server -accept {port} -cert own.pem -key own.key -WWW -quiet");
    let mut server = openssl(&words).spawn().unwrap();
    let limit = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < limit, "the server does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    let url = format!("https://localhost:{port}/enwik8.zip");
    let trusted = fetch(&["--url", &url], &[("SSL_CERT_FILE", "ca.pem")]);
    let nothing = [
        ("SSL_CERT_FILE", "/dev/null"),
        ("SSL_CERT_DIR", "/nonexistent"),
    ];
    let [unknown, empty] = [&[][..], &nothing].map(|variables| fetch(&["--url", &url], variables));
    let _ = server.kill();
    let _ = server.wait();
    // The file itself is not the registered one.
    assert!(!trusted.contains("certificate"), "{trusted}");
    assert!(unknown.contains("UnknownIssuer"), "{unknown}");
    // Without any certificates in the system, those of the binary are used.
    assert!(empty.contains("UnknownIssuer"), "{empty}");
}

#[test]
fn paths_and_prompts_may_be_any_bytes() {
    let dir = scratch();
    let odd = |name: &str| OsString::from_vec([name.as_bytes(), b"\xff\xfe"].concat());
    let place = dir.path().join(odd("place"));
    std::fs::create_dir(&place).unwrap();
    std::fs::write(
        place.join(odd("text")),
        b"the cat sat on the mat. ".repeat(400),
    )
    .unwrap();
    let call = |args: &[&OsStr]| {
        let output = rezero(&place, &[]).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {said}");
        output.stdout
    };
    let (text, run) = (odd("text"), odd("run"));
    let word = OsStr::new;
    let train = "train enwik8-tiny depth=2 steps=4 eval_every=2 valid_items=64 batch=2 --run-dir";
    let mut args: Vec<&OsStr> = train.split(' ').map(word).collect();
    args.extend([run.as_os_str(), word("--text"), text.as_os_str()]);
    call(&args);
    // The text is found again by env.json.
    call(&[word("train"), &run, word("--resume"), word("steps=6")]);
    call(&[word("eval"), &run, word("--split"), word("test")]);
    let prompt = OsStr::from_bytes(b"\xff[[");
    let bytes = [word("--bytes"), word("3")];
    let written = call(&[
        word("sample"),
        &run,
        word("--prompt"),
        prompt,
        bytes[0],
        bytes[1],
    ]);
    assert!(
        written.starts_with(b"\xff[[") && written.len() == 7,
        "{written:?}"
    );
    // Longer than the context of 64.
    std::fs::write(place.join("prompt"), vec![b'a'; 1000]).unwrap();
    let file = [word("--prompt-file"), word("prompt")];
    let written = call(&[word("sample"), &run, file[0], file[1], bytes[0], bytes[1]]);
    assert_eq!(written.len(), 1004);
}

/// Every command that takes a run, a folder or a file, with names that no shell and no text likes.
#[test]
fn every_command_takes_paths_of_any_bytes() {
    let names: [&[u8]; 3] = [b"\xff\xfe", b"a=b c\n\x1b[31m", b"-x <&'\""];
    for name in names {
        let dir = scratch();
        let place = dir.path();
        let named = |before: &str, after: &str| {
            OsString::from_vec([before.as_bytes(), name, after.as_bytes()].concat())
        };
        let call = |words: &str, paths: &[OsString], keys: &str| {
            let mut command = rezero(place, &[]);
            command.args(words.split_whitespace()).args(paths);
            let output = command.args(keys.split_whitespace()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{words} {paths:?}: {said}");
            output.stdout
        };
        std::fs::create_dir(place.join(named("", ""))).unwrap();
        std::fs::rename(cifar_layout(place, 8), place.join(named("", "/data"))).unwrap();
        let tiny = "train cifar10-mlp64 depth=2 width=8 epochs=1 --plain";
        let places = [named("--data-dir=", "/data"), named("--run-dir=", "/run")];
        call(tiny, &places, "");
        // A name with a dash in front follows `--` or `=`.
        let json = call("eval --json --split test --", &[named("", "/run")], "");
        serde_json::from_slice::<serde_json::Value>(&json).unwrap();
        call(
            "train --resume --plain --",
            &[named("", "/run")],
            "epochs=2",
        );
        let at = [named("--out=", ""), "--".into(), named("", "/run")];
        call("jacobian --inputs 1", &at, "");
        assert!(place.join(named("", "/jacobian-2.svg")).exists());
        let at = [named("--run-dir=grown", ""), "--".into(), named("", "/run")];
        call("grow --layers 3 --only", &at, "");
        let page = place.join(named("page", ""));
        std::fs::write(&page, "<!-- report x -->\n<!-- /report x -->\n").unwrap();
        let (out, into) = (named("--out=report", ""), named("--into=page", ""));
        let at = [out, into, "--".into(), named("A=B=", "/run")];
        call("report --no-jacobian --name x", &at, "");
        let page = std::fs::read_to_string(page).unwrap();
        assert!(page.contains("| A=B |"), "{page}");

        let recipe = named("", ".toml");
        let text = "[model]\nfamily='byte-lm'\n[data]\nset='wiki-like'\n[run]\nsteps=1\n";
        std::fs::write(place.join(&recipe), text).unwrap();
        call("recipes --", &[named("", ".toml")], "");
        let sizes = "depth=1 d_model=8 n_heads=2 d_ff=8 context=8 batch=2 valid_items=16";
        call(
            "train --plain --run-dir lm --",
            &[named("", ".toml")],
            sizes,
        );
        let weights = named("", ".safetensors");
        call("export lm", &[named("--out=", ".safetensors")], "");
        let at = [
            named("--run-dir=imported", ""),
            "--".into(),
            weights,
            recipe,
        ];
        call("import", &at, sizes);
        call("sample --bytes 1 --", &[named("imported", "")], "");
    }
}

/// Built without MPI, several processes would each begin a run in the same place.
#[cfg(not(feature = "mpi"))]
#[test]
fn several_processes_of_a_program_without_mpi_are_refused() {
    let dir = scratch();
    let args = [
        "train",
        "enwik8-tiny",
        "data=wiki-like",
        "depth=1",
        "batch=2",
        "context=8",
        "steps=1",
        "valid_items=64",
        "--run-dir",
        "run",
        "--plain",
    ];
    let with = |variables: &[(&str, &str)], more: &[&str]| {
        let mut command = rezero(dir.path(), &args);
        command
            .args(more)
            .envs(variables.iter().copied())
            .output()
            .unwrap()
    };
    for variable in ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"] {
        let output = with(&[(variable, "4")], &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains(&format!("4 processes were started at once ({variable}=4)")),
            "{said}"
        );
        assert!(
            said.contains("--features mpi") && said.contains("--alone"),
            "{said}"
        );
        assert!(
            !dir.path().join("run").exists(),
            "the run directory was touched"
        );
    }
    let output = rezero(dir.path(), &["sweep", "enwik8-tiny", "seed=1..2"])
        .env("PMI_SIZE", "2")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("start it once"));
    let output = rezero(dir.path(), &["eval", "run"])
        .env("PMI_SIZE", "2")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("--features mpi"));
    // One process of mpirun; a script of sbatch, in which Slurm counts the tasks that it may start; on purpose.
    let fine = [
        (vec![("OMPI_COMM_WORLD_SIZE", "1")], "seed=1"),
        (vec![("SLURM_NTASKS", "4"), ("SLURM_PROCID", "0")], "seed=2"),
        (vec![("OMPI_COMM_WORLD_SIZE", "4")], "--alone"),
    ];
    for (variables, more) in fine {
        let output = with(&variables, &[more]);
        assert!(
            output.status.success(),
            "{variables:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        std::fs::remove_dir_all(dir.path().join("run")).unwrap();
    }
}
