//! What no rule refuses works as it does without Portcullis: sockets beside a protocol rule, calls beside a capability rule,
//! every kind of file operation and the engine's own commands beside rules that name something else.

use std::path::Path;

use crate::Result;
use crate::bundle::{ALL, Bundle};
use crate::guest::{self, Guest};
use crate::image::{self, Overlay};
use crate::podman::Podman;
use crate::process::Talk;
use crate::report::Report;
use crate::runtime::{Runtime, START_LIMIT};

const HEAD: &str = "\
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata:
  name: harmless
  namespace: default
spec:
  selector:
    matchLabels:
      app: harmless
";

/// Rules that name nothing that the tests use.
const UNRELATED: &str = "  file:
    matchPaths:
      - path: /srv/unrelated/secret
    matchPatterns:
      - pattern: /srv/unrelated/**/*.key
  process:
    matchPaths:
      - path: /srv/unrelated/program
  network:
    matchProtocols:
      - protocol: sctp
  capabilities:
    matchCapabilities:
      - capability: sys_boot
  action: Block
";

/// A rule set, and what has to work under it: an operation of the probe each.
struct Group {
    name: &'static str,
    rules: &'static str,
    operations: &'static [&'static str],
}

const GROUPS: &[Group] = &[
    Group {
        name: "sockets-beside-tcp-and-udp",
        rules: "  network:\n    matchProtocols:\n      - protocol: tcp\n      - protocol: udp\n  action: Block\n",
        operations: &[
            "socket 1 1 0",
            "socket 1 2 0",
            "socket 1 5 0",
            "bind 1 1 0",
            "listen 1 1 0",
            "connect 1 1 0",
            "sendto 1 2 0",
            "socket 16 3 0",
            "socket 16 2 0",
            "bind 16 3 0",
            "socket 2 3 1",
        ],
    },
    Group {
        name: "sockets-beside-raw",
        rules: "  network:\n    matchProtocols:\n      - protocol: raw\n  action: Block\n",
        operations: &[
            "socket 2 1 0",
            "socket 2 2 0",
            "socket 10 1 0",
            "bind 2 1 0",
            "listen 2 1 0",
            "connect 2 1 0",
            "sendto 2 2 0",
            "socket 16 3 0",
            "socket 16 3 9",
            "bind 16 3 0",
            "socket 1 1 0",
        ],
    },
    Group {
        name: "files-beside-capabilities",
        rules: "  capabilities:\n    matchCapabilities:\n      - capability: sys_admin\n      - capability: net_admin\n      - capability: dac_read_search\n  action: Block\n",
        // On an overlay these copy up, which the file system does with powers of its own.
        operations: &[
            "chown /lower/chown",
            "chmod /lower/chmod",
            "write /lower/write",
            "append /lower/append",
            "truncate /lower/truncate",
            "utimes /lower/utimes",
            "setxattr /lower/setxattr",
            "rename /lower/rename /lower/renamed",
            "link /lower/link /lower/linked",
            "unlink /lower/unlink",
            "mkdir /lower/dir",
            "rmdir /lower/empty",
            "cap chown",
            "cap setuid",
            "cap kill",
            "exec /bin/true",
        ],
    },
    Group {
        name: "everything-beside-unrelated-rules",
        rules: UNRELATED,
        operations: &[
            "read /lower/read",
            "write /lower/write",
            "append /lower/append",
            "create /tmp/created",
            "mkdir /tmp/made",
            "rmdir /tmp/made",
            "symlink /tmp/symlink /lower/read",
            "mknod /tmp/fifo",
            "rename /tmp/fifo /tmp/fifo2",
            "link /lower/read /tmp/hard",
            "unlink /tmp/hard",
            "chmod /lower/chmod",
            "chown /lower/chown",
            "truncate /lower/truncate",
            "ftruncate /lower/truncate",
            "utimes /lower/utimes",
            "setxattr /lower/setxattr",
            "opendir /",
            "opendir /srv",
            "tmpfile /tmp",
            "map /lower/write",
            "exec /bin/true",
            "execve /bin/true",
            "fexecve /bin/true",
            "memfd",
            "exec-tmpfile /tmp",
            "socket 2 1 0",
            "socket 1 1 0",
            "cap chown",
            "cap setuid",
            "cap sys_admin",
            "read /proc/version",
            "mkdir /tmp/one",
            "rename /tmp/one /tmp/two",
            "exchange /lower/a /lower/b",
        ],
    },
];

/// Shell lines that have to end with 0 in a container of busybox.
const SHELL: &[(&str, &str)] = &[
    ("pipes", "echo one | cat | grep -q one"),
    ("tar", "cd /tmp && tar -cf a.tar -C / etc bin/busybox && mkdir -p t && tar -xf a.tar -C t && test -f t/etc/passwd"),
    ("tree", "cp -a /etc /tmp/e && mv /tmp/e /tmp/e2 && rm -r /tmp/e2"),
    ("background", "sleep 0.1 & wait $!"),
    ("here", "cat <<X\nhere\nX"),
];

/// The same in an image that has these programs.
const DEBIAN: &[(&str, &str)] = &[
    ("tar", "cd /tmp && tar -cf a.tar /etc && mkdir t && tar -xf a.tar -C t"),
    ("dpkg", "dpkg -l >/dev/null && dpkg --verify base-files"),
    (
        "dpkg-build",
        "mkdir -p /tmp/p/DEBIAN && printf 'Package: p\\nVersion: 1\\nArchitecture: all\\nMaintainer: a <a@b.c>\\nDescription: d\\n' >/tmp/p/DEBIAN/control && mkdir -p /tmp/p/opt/p && echo x >/tmp/p/opt/p/x && dpkg-deb -b /tmp/p /tmp/p.deb && dpkg -i /tmp/p.deb && dpkg -r p",
    ),
    ("compile", "command -v gcc >/dev/null || exit 0; cd /tmp && echo 'int main(void){return 0;}' >m.c && gcc m.c -o m && ./m"),
];

/// The image with a package manager and a compiler, where it was imported.
const DEBIAN_IMAGE: &str = "localhost/debian";

/// Runs the suite.
pub(crate) fn run(guest: &Guest, report: &mut Report) -> Result<()> {
    guest.configure("enforce", "audit")?;
    let place = guest.work.join("harmless");
    let lower = place.join("root");
    image::make(&lower)?;
    image::add_programs(guest, &lower)?;
    for runtime in guest.runtimes.iter().copied().take(if guest.ci { 1 } else { 2 }) {
        for group in GROUPS {
            let prefix = format!("harmless/{}/{}", runtime.name(), group.name);
            if guest.wants(&prefix) {
                operations(guest, report, runtime, &place, group, &prefix)?;
            }
        }
    }
    if guest.wants("harmless/podman") {
        let policy = format!("{HEAD}{UNRELATED}").replace("namespace: default", "namespace: container_namespace");
        guest.set_policies(&[("harmless", &policy)])?;
        match Podman::prepare(guest)? {
            None => report.skip("harmless/podman", "podman is not installed"),
            Some(podman) => engine(report, &podman)?,
        }
    }
    Ok(())
}

fn operations(guest: &Guest, report: &mut Report, runtime: Runtime, place: &Path, group: &Group, prefix: &str) -> Result<()> {
    let lower = place.join("root");
    prepare_lower(&lower)?;
    let overlay = Overlay::mount(&lower, &place.join("overlay"))?;
    guest.set_policies(&[("harmless", &format!("{HEAD}{}", group.rules))])?;
    let answers_of = |hooked: bool| -> Result<Vec<String>> {
        let overlay = Overlay::mount(&lower, &place.join(if hooked { "overlay" } else { "overlay-control" }))?;
        let id = format!("harmless-{}-{}-{hooked}", runtime.name(), group.name);
        let mut bundle = Bundle::new(&id, &overlay.merged, &["/probe", "--drive"]);
        bundle.capabilities = ALL.to_vec();
        bundle.hooked = hooked;
        bundle.facts.labels.insert("app".to_owned(), "harmless".to_owned());
        let mut container = runtime.start(guest, &bundle)?;
        container.dialogue.line(START_LIMIT)?;
        let mut answers = Vec::new();
        for (number, operation) in group.operations.iter().enumerate() {
            container.dialogue.tell(&format!("{number}\t-\t-1\t{}", operation.replace(' ', "\t")))?;
            answers.push(container.dialogue.line(START_LIMIT)?);
        }
        if hooked && group.name == "everything-beside-unrelated-rules" {
            for (name, script) in SHELL {
                let outcome = runtime.exec(guest, &id, &["/bin/sh", "-c", script])?;
                let result = if outcome.success() { Ok(()) } else { Err(outcome.complaint()) };
                report.check(&format!("{prefix}/shell-{name}"), result);
            }
        }
        container.stop();
        Ok(answers)
    };
    drop(overlay);
    let mut answers_of = answers_of;
    let free = answers_of(false)?;
    let under = answers_of(true)?;
    for ((operation, free), under) in group.operations.iter().zip(&free).zip(&under) {
        let name = format!("{prefix}/{}", operation.replace(' ', "-"));
        if free != under {
            report.fail(&name, format!("without a policy {free}, under one that does not name it {under}"));
        } else if free.contains("\"errno\":0,") {
            report.ok(&name);
        } else {
            report.skip(&name, format!("does not work without a policy either: {free}"));
        }
    }
    Ok(())
}

fn prepare_lower(root: &Path) -> Result<()> {
    let lower = root.join("lower");
    guest::remove_tree(&lower)?;
    guest::make_open_directory(&lower)?;
    guest::make_directory(&lower.join("empty"))?;
    guest::make_directory(&root.join("srv/unrelated"))?;
    for file in
        ["read", "write", "append", "chown", "chmod", "truncate", "utimes", "setxattr", "rename", "link", "unlink", "a", "b"]
    {
        guest::write(&lower.join(file), b"some content\n")?;
    }
    Ok(())
}

/// The life of a container by the engine's own commands.
fn engine(report: &mut Report, podman: &Podman) -> Result<()> {
    const NAME: &str = "portcullis-harmless";
    podman.call(&["rm", "-f", "--ignore", "-t", "0", NAME])?;
    let start = ["-d", "--name", NAME, "--label", "app=harmless"];
    let mut step = |name: &str, outcome: Result<crate::process::Outcome>, expected: &str| {
        report.run(&format!("harmless/podman/{name}"), || {
            let outcome = outcome?;
            Ok(if outcome.success() && outcome.stdout.contains(expected) {
                Ok(())
            } else {
                Err(format!("{} {:?}", outcome.complaint(), outcome.stdout))
            })
        });
    };
    step("run", podman.run(&start, &["/bin/sh", "-c", "echo hello; exec sleep 100000"]), "");
    step("exec", podman.call(&["exec", NAME, "/bin/sh", "-c", "echo in; id"]), "uid=0");
    step("exec-user", podman.call(&["exec", "-u", "1000", NAME, "/bin/id"]), "uid=1000");
    step("logs", podman.call(&["logs", NAME]), "hello");
    let file = std::env::temp_dir().join("portcullis-harmless");
    guest::write(&file, b"carried")?;
    step("cp", podman.call(&["cp", &file.to_string_lossy(), &format!("{NAME}:/tmp/carried")]), "");
    step("cp-seen", podman.call(&["exec", NAME, "/bin/cat", "/tmp/carried"]), "carried");
    step("pause", podman.call(&["pause", NAME]), "");
    step("unpause", podman.call(&["unpause", NAME]), "");
    step("inspect", podman.call(&["inspect", "--format", "{{.State.Status}}", NAME]), "running");
    step("stop", podman.call(&["stop", "-t", "2", NAME]), "");
    step("start", podman.call(&["start", NAME]), "");
    step("kill", podman.call(&["kill", NAME]), "");
    step("rm", podman.call(&["rm", "-f", "-t", "0", NAME]), "");
    if !podman.call(&["image", "exists", DEBIAN_IMAGE])?.success() {
        report.skip("harmless/podman/debian", format!("there is no image {DEBIAN_IMAGE}"));
        return Ok(());
    }
    for (name, script) in DEBIAN {
        report.run(&format!("harmless/podman/debian-{name}"), || {
            let outcome =
                podman.call(&["run", "--rm", "--network=none", "--label", "app=harmless", DEBIAN_IMAGE, "sh", "-ec", script])?;
            Ok(if outcome.success() { Ok(()) } else { Err(outcome.complaint()) })
        });
    }
    Ok(())
}
