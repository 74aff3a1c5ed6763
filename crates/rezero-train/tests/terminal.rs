//! The terminal after every way out of Burn's interface. `script` gives the program a terminal and
//! records what it writes there.
#![cfg(target_os = "linux")]

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{rezero, scratch, succeed};

/// A terminal in which a shell runs `command`, says its exit status and the state of the terminal.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn new(dir: &Path, size: &str, command: &Command) -> Self {
        let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().unwrap());
        let words: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(quoted)
            .collect();
        // The shell ignores Ctrl-C, the program does not, nor what this test was told to ignore (`nohup`).
        let line = format!(
            "stty {size}; trap : INT; env --default-signal=HUP,INT {}; echo status=$?; stty -a; echo over",
            words.join(" ")
        );
        let mut child = Command::new("script")
            .args(["-qefc", &line, "/dev/null"])
            .current_dir(dir)
            .env("TERM", "xterm-256color")
            .env("SHELL", "/bin/bash")
            .env_remove("CI")
            .env_remove("JPY_PARENT_PID")
            .env_remove("NO_COLOR")
            .envs(
                command
                    .get_envs()
                    .filter_map(|(key, value)| Some((key, value?))),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("script is there");
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut out, all) = (child.stdout.take().unwrap(), written.clone());
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(n @ 1..) = out.read(&mut part) {
                all.lock().unwrap().extend(&part[..n]);
            }
        });
        Self {
            keys: child.stdin.take().unwrap(),
            child,
            written,
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    fn wait_for(&self, part: &str) {
        let limit = Instant::now() + Duration::from_secs(120);
        while !self.text().contains(part) {
            assert!(Instant::now() < limit, "no {part:?} in {:?}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
        self.keys.flush().unwrap();
    }

    /// What was written until the shell's last word.
    fn end(mut self) -> String {
        self.wait_for("over\r\n");
        let _ = self.child.kill();
        self.child.wait().unwrap();
        let text = self.text();
        if let Some(folder) = std::env::var_os("REZERO_RECORDINGS") {
            let name = std::thread::current()
                .name()
                .unwrap_or("test")
                .replace("::", "-");
            std::fs::write(Path::new(&folder).join(name), &text).unwrap();
        }
        text
    }
}

/// Whether `script` of util-linux is here. Without it these tests say that they are left out.
fn has_script() -> bool {
    let output = Command::new("script").arg("--version").output();
    let found = output.is_ok_and(|output| output.stdout.starts_with(b"script from util-linux"));
    if !found {
        eprintln!("left out: `script` of util-linux is not here");
    }
    found
}

const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

/// Asserts that the terminal is as it was, and that the exit status and the last words are these.
fn is_restored(text: &str, status: i32, parts: &[&str]) {
    let last = |part: &str| text.rfind(part);
    assert!(last(ENTER).is_some(), "no interface: {text:?}");
    for (on, off) in [
        (ENTER, LEAVE),
        // Mouse reports; the cursor.
        ("\x1b[?1000h", "\x1b[?1000l"),
        ("\x1b[?25l", "\x1b[?25h"),
    ] {
        assert!(last(on) < last(off), "{on:?} is not undone: {text:?}");
    }
    let (_, after) = text.rsplit_once(LEAVE).unwrap();
    assert!(after.contains(&format!("status={status}\r\n")), "{after:?}");
    let modes: Vec<&str> = after.split_whitespace().collect();
    for mode in ["icanon", "echo", "isig", "opost"] {
        assert!(modes.contains(&mode), "no {mode}: {after:?}");
    }
    for part in parts {
        assert!(text.contains(part), "no {part:?}: {text:?}");
    }
}

fn training(dir: &Path, more: &[&str]) -> Command {
    let words =
        "train enwik8-tiny data=wiki-like depth=2 batch=2 valid_items=64 log_every=1 --run-dir run";
    let words: Vec<&str> = words.split(' ').chain(more.iter().copied()).collect();
    rezero(dir, &words)
}

const LARGE: &str = "rows 40 cols 120";

fn drawn(dir: &Path) -> Terminal {
    let terminal = Terminal::new(dir, LARGE, &training(dir, &["steps=100000"]));
    terminal.wait_for("Bits per byte");
    // The interface looks for keys after it is drawn, and Ctrl-C is made a signal a little later.
    std::thread::sleep(Duration::from_millis(500));
    terminal
}

fn pid(dir: &Path) -> String {
    let path = format!("{}", dir.join("run").display());
    let found = Command::new("sh")
        .args([
            "-c",
            "for p in /proc/[0-9]*; do [ \"$(readlink $p/cwd)\" = \"$0\" ] && \
               case $(readlink $p/exe) in */rezero) basename $p;; esac; done",
        ])
        .arg(dir)
        .output()
        .unwrap();
    let pid = String::from_utf8(found.stdout).unwrap().trim().to_owned();
    assert!(!pid.is_empty() && !pid.contains('\n'), "{path}: {pid:?}");
    pid
}

#[test]
fn the_end_of_a_run_gives_the_terminal_back() {
    if !has_script() {
        return;
    }
    let dir = scratch();
    let terminal = Terminal::new(dir.path(), LARGE, &training(dir.path(), &["steps=200"]));
    is_restored(&terminal.end(), 0, &["done in"]);
}

#[test]
fn ctrl_c_gives_the_terminal_back() {
    if !has_script() {
        return;
    }
    let dir = scratch();
    let mut terminal = drawn(dir.path());
    // Ctrl-Z and Ctrl-\ do nothing.
    terminal.press(b"\x1a\x1c");
    terminal.press(b"\x03");
    is_restored(&terminal.end(), 130, &["saved; continue with:"]);
    let dir = scratch();
    let mut terminal = drawn(dir.path());
    terminal.press(b"\x03\x03");
    // The step may be shorter than the time between the two.
    let text = terminal.end();
    let at_once = text.contains("stopped at once");
    is_restored(
        &text,
        130,
        &[if at_once { "stays" } else { "saved; continue" }],
    );
}

#[test]
fn the_menu_of_the_interface_gives_the_terminal_back() {
    if !has_script() {
        return;
    }
    for (key, part) in [(b"s", "saved; continue with:"), (b"k", "stopped at once")] {
        let dir = scratch();
        let mut terminal = drawn(dir.path());
        terminal.press(b"q");
        terminal.wait_for("Stop the training immediately");
        terminal.press(key);
        is_restored(&terminal.end(), 130, &[part]);
    }
}

#[test]
fn signals_give_the_terminal_back() {
    if !has_script() {
        return;
    }
    for (signal, status) in [("-TERM", 143), ("-HUP", 129)] {
        let dir = scratch();
        let terminal = drawn(dir.path());
        let kill = Command::new("kill")
            .args([signal, &pid(dir.path())])
            .status();
        assert!(kill.unwrap().success());
        is_restored(&terminal.end(), status, &["saved; continue with:"]);
    }
}

/// A terminal that is closed raises SIGHUP, and nothing can be written there any more.
#[test]
fn a_run_whose_terminal_is_closed_saves_its_step() {
    if !has_script() {
        return;
    }
    let dir = scratch();
    // Steps that take longer than the interface waits between two drawings.
    let slow = ["steps=100000", "depth=12", "batch=48", "eval_every=100000"];
    let mut terminal = Terminal::new(dir.path(), LARGE, &training(dir.path(), &slow));
    terminal.wait_for("Bits per byte");
    std::thread::sleep(Duration::from_millis(1000));
    terminal.child.kill().unwrap();
    terminal.child.wait().unwrap();
    let limit = Instant::now() + Duration::from_secs(60);
    let run = dir.path().join("run");
    while rezero_train::record::checkpoint::list(&run)
        .unwrap()
        .is_empty()
    {
        assert!(Instant::now() < limit, "no checkpoint");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn errors_and_divergence_give_the_terminal_back() {
    if !has_script() {
        return;
    }
    let dir = scratch();
    let diverging = training(dir.path(), &["lr=1e30", "steps=100"]);
    let terminal = Terminal::new(dir.path(), LARGE, &diverging);
    is_restored(&terminal.end(), 3, &["diverged at step 2"]);
}

/// Run by the test below in a terminal.
#[test]
#[ignore = "panics on purpose"]
fn a_model_that_panics() {
    crate::trainer::panic_at_step_3(Path::new("run"));
}

#[test]
fn a_panic_gives_the_terminal_back() {
    if !has_script() {
        return;
    }
    let dir = scratch();
    let mut own = Command::new(std::env::current_exe().unwrap());
    own.args([
        "--ignored",
        "--exact",
        "--nocapture",
        "terminal::a_model_that_panics",
    ]);
    let terminal = Terminal::new(dir.path(), LARGE, &own);
    is_restored(&terminal.end(), 101, &["step 3 is too much"]);
}

#[test]
fn the_interface_has_no_colours_where_none_are_wanted() {
    if !has_script() {
        return;
    }
    let coloured = |wanted: bool| {
        let dir = scratch();
        let mut command = training(dir.path(), &["steps=200"]);
        if !wanted {
            command.env("NO_COLOR", "1");
        }
        let text = Terminal::new(dir.path(), LARGE, &command).end();
        is_restored(&text, 0, &["done in"]);
        // Colours are 30 to 49 and 90 to 107; 39 and 49 are the terminal's own.
        let codes = text.split("\x1b[").filter_map(|part| part.split_once('m'));
        let numbers = codes.flat_map(|(codes, _)| codes.split(';').map(str::parse::<u8>));
        let mut found = numbers.filter_map(Result::ok);
        found.any(|n| matches!(n, 30..=38 | 40..=48 | 90..=107))
    };
    assert!(coloured(true));
    assert!(!coloured(false));
}

#[test]
fn lines_are_printed_where_keys_do_not_arrive() {
    if !has_script() {
        return;
    }
    for shell in ["exec \"$@\" < /dev/null", "set -m; \"$@\" & wait $!"] {
        let dir = scratch();
        let program = training(dir.path(), &["steps=3"]);
        let mut command = Command::new("bash");
        command
            .args(["-c", shell, "bash"])
            .arg(program.get_program());
        command.args(program.get_args());
        let text = Terminal::new(dir.path(), LARGE, &command).end();
        assert!(!text.contains('\x1b'), "{shell}: {text:?}");
        assert!(
            text.contains("3/3 valid") && text.contains("status=0"),
            "{text:?}"
        );
    }
}

#[test]
fn lines_are_printed_where_there_is_no_room_or_no_screen() {
    if !has_script() {
        return;
    }
    for (size, variable) in [
        ("rows 40 cols 20", ("LANG", "C")),
        ("rows 0 cols 0", ("LANG", "C")),
        (LARGE, ("TERM", "dumb")),
        (LARGE, ("CI", "true")),
        // A notebook's cell.
        (LARGE, ("JPY_PARENT_PID", "7")),
    ] {
        let dir = scratch();
        let mut command = training(dir.path(), &["steps=3"]);
        command.env(variable.0, variable.1);
        let text = Terminal::new(dir.path(), size, &command).end();
        assert!(!text.contains('\x1b'), "{size} {variable:?}: {text:?}");
        assert!(
            text.contains("3/3 valid") && text.contains("status=0"),
            "{text:?}"
        );
    }
}

#[test]
fn a_terminal_gets_a_sample_in_characters_that_it_only_shows() {
    if !has_script() {
        return;
    }
    let dir = scratch();
    let train = "train enwik8-tiny data=wiki-like depth=1 steps=1 batch=1 valid_items=64 --plain --run-dir run";
    let words: Vec<&str> = train.split(' ').collect();
    succeed(dir.path(), &words);
    std::fs::write(
        dir.path().join("prompt"),
        b"a\n\x1b]0;owned\x07\x9b\xe2\x82\xac\xe2",
    )
    .unwrap();
    let args = ["sample", "run", "--prompt-file", "prompt", "--bytes", "300"];
    let command = rezero(dir.path(), &args);
    let text = Terminal::new(dir.path(), "rows 24 cols 200", &command).end();
    assert!(
        text.contains("a\r\n\\u{1b}]0;owned\\u{7}\\x9b€"),
        "{text:?}"
    );
    let hidden = |c: char| c.is_control() && !"\r\n\t".contains(c);
    assert_eq!(text.chars().find(|c| hidden(*c)), None, "{text:?}");
}
