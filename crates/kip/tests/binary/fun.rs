//! The workflow of Fun: shares at their paths, dependencies of a project, functions in the foreground.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{ChildGuard, Server, call, kill, kip, run, until, until_true};

/// Two functions of a service that share `/mnt/auto`.
const TEMPLATE: &str = "ROSTemplateFormatVersion: '2015-09-01'
Transform: 'Aliyun::Serverless-2018-04-03'
Resources:
  shop:
    Type: 'Aliyun::Serverless::Service'
    Properties: {NasConfig: Auto}
    web:
      Type: 'Aliyun::Serverless::Function'
      Properties:
        Handler: index.handler
        Runtime: python3
        CodeUri: ./code
        Timeout: 30
        MemorySize: 128
    other:
      Type: 'Aliyun::Serverless::Function'
      Properties: {Handler: index.handler, Runtime: python3, CodeUri: ./code, Timeout: 30, MemorySize: 128}
";

/// Does what the event says: `read PATH`, `write PATH TEXT`, `import NAME`, `say TEXT`.
const HANDLER: &str = "import importlib, os, sys

def handler(event, context):
    verb, _, rest = event.decode().partition(' ')
    try:
        if verb == 'read':
            return open(rest).read()
        if verb == 'write':
            path, _, text = rest.partition(' ')
            with open(path, 'w') as file:
                file.write(text)
            return 'written'
        if verb == 'import':
            return importlib.import_module(rest).VALUE
        print(rest, flush=True)
        return 'VERSION said ' + rest
    except Exception as error:
        return type(error).__name__ + ': ' + str(error)
";

fn has_python() -> bool {
    let has = std::process::Command::new("python3").arg("--version").output().is_ok_and(|it| it.status.success());
    if !has {
        eprintln!("skipped: no python3 is here");
    }
    has
}

/// A project in the server's folder.
fn project(server: &Server, template: &str) -> PathBuf {
    let folder = server.folder().join("app");
    fs::create_dir_all(folder.join("code")).unwrap();
    fs::write(folder.join("template.yml"), template).unwrap();
    fs::write(folder.join("code/index.py"), HANDLER).unwrap();
    folder
}

/// Runs a command in a project.
fn in_project(server: &Server, folder: &Path, words: &[&str]) -> crate::support::CommandOutput {
    run(kip(&server.data()).args(words).current_dir(folder))
}

fn invoke(server: &Server, folder: &Path, function: &str, event: &str) -> String {
    let ran = in_project(server, folder, &["-o", "json", "s", "invoke", function, "-e", event]).ok();
    ran.json()["body"].as_str().unwrap_or_else(|| panic!("{ran:?}")).to_owned()
}

#[test]
fn shares_are_mounted_where_the_file_says() {
    if !has_python() {
        return;
    }
    let server = Server::start();
    let folder = project(&server, TEMPLATE);
    let in_app = |words: &[&str]| in_project(&server, &folder, words);
    let share = server.data().join("storage/nas/auto-default/shop").display().to_string();
    let made = in_app(&["-o", "json", "nas", "init"]).ok().json();
    assert_eq!((&made[0]["share"], &made[0]["mount"]), (&json!("auto-default:/shop"), &json!("/mnt/auto")));
    assert_eq!((&made[0]["folder"], &made[0]["functions"]), (&json!(share), &json!(["shop-web", "shop-other"])));
    let twin = folder.join(".fun/nas/auto-default/shop");
    fs::create_dir(twin.join("model")).unwrap();
    fs::write(twin.join("model/weights"), "seven").unwrap();
    let synced = in_app(&["-o", "json", "nas", "sync"]).ok().json();
    assert_eq!((&synced[0]["copied"], &synced[0]["same"]), (&json!(1), &json!(0)), "{synced}");
    for place in ["nas://shop:/mnt/auto/", "nas:///mnt/auto/"] {
        let again = in_app(&["-o", "json", "nas", "sync", place]).ok().json();
        assert_eq!((&again[0]["copied"], &again[0]["same"]), (&json!(0), &json!(1)), "{again}");
        assert!(in_app(&["nas", "ls", place]).ok().stdout.contains("model/"));
    }
    assert!(in_app(&["nas", "ls", "nas:///mnt/auto/model"]).ok().stdout.contains("weights"));
    in_app(&["nas", "ls", "nas://none:/mnt/auto/"]).failed(&["KW-1072", "kip nas info"]);

    let made = in_app(&["deploy", "-y"]).ok();
    assert!(made.stderr.contains(&format!("shop-web sees /mnt/auto: {share} of auto-default:/shop")), "{made:?}");
    assert_eq!(invoke(&server, &folder, "shop/web", "read /mnt/auto/model/weights"), "seven");
    // What one function writes, another may change, and it belongs to whom the share belongs to.
    assert_eq!(invoke(&server, &folder, "shop/web", "write /mnt/auto/out first"), "written");
    assert_eq!(invoke(&server, &folder, "shop$other", "write /mnt/auto/out second"), "written");
    let out = Path::new(&share).join("out");
    assert_eq!(fs::read_to_string(&out).unwrap(), "second");
    assert_eq!(fs::metadata(&out).unwrap().uid(), fs::metadata(&share).unwrap().uid());
    assert!(in_app(&["deploy", "-y"]).ok().stdout.contains("is as the file has it"));

    // Another folder, kept for later deployments.
    let models = server.folder().join("models");
    fs::create_dir(&models).unwrap();
    fs::write(models.join("name"), "other").unwrap();
    let mount = format!("auto-default:/shop={}", models.display());
    let moved = in_app(&["deploy", "-y", "--mount", &mount]).ok();
    assert!(moved.stderr.contains(&format!("{} of auto-default:/shop", models.display())), "{moved:?}");
    assert_eq!(invoke(&server, &folder, "shop/web", "read /mnt/auto/name"), "other");
    assert!(in_app(&["deploy", "-y"]).ok().stdout.contains("is as the file has it"));
    in_app(&["deploy", "-y", "--mount", "none=/srv"]).failed(&["KW-1072", "auto-default:/shop"]);
    in_app(&["deploy", "-y", "--mount", &format!("auto-default={}", server.data().display())]).failed(&["KW-1070"]);
}

#[test]
fn a_bucket_that_is_read_only_cannot_be_written() {
    if !has_python() {
        return;
    }
    let server = Server::start();
    let folder = project(&server, TEMPLATE);
    fs::remove_file(folder.join("template.yml")).unwrap();
    let text = "edition: 3.0.0
name: app
resources:
  web:
    component: fc3
    props:
      region: r
      functionName: web
      runtime: python3.10
      handler: index.handler
      code: ./code
      timeout: 30
      nasConfig: {userId: 0, groupId: 0, mountPoints: [{serverAddr: 'a.nas.example.com:/data', mountDir: /mnt/data}]}
      ossMountConfig:
        mountPoints: [{bucketName: models, bucketPath: /v1, mountDir: /home/app/models, readOnly: true, endpoint: x}]
";
    fs::write(folder.join("s.yaml"), text).unwrap();
    let bucket = server.data().join("storage/oss/models/v1");
    fs::create_dir_all(&bucket).unwrap();
    fs::write(bucket.join("weights"), "seven").unwrap();
    let plan = in_project(&server, &folder, &["-o", "json", "plan"]).ok().json();
    let effect = |path: &str| {
        let key = plan["keys"].as_array().unwrap().iter().find(|key| key["path"].as_str().unwrap().ends_with(path));
        key.unwrap_or_else(|| panic!("{path}"))["effect"].clone()
    };
    assert_eq!(
        (effect("mountDir"), effect("readOnly"), effect("endpoint")),
        (json!("mapped"), json!("mapped"), json!("stored"))
    );
    let made = in_project(&server, &folder, &["deploy"]).ok();
    assert!(made.stderr.contains("web sees /home/app/models (read-only)"), "{made:?}");
    assert_eq!(invoke(&server, &folder, "web", "read /home/app/models/weights"), "seven");
    let refused = invoke(&server, &folder, "web", "write /home/app/models/weights eight");
    assert!(refused.contains("Read-only file system"), "{refused}");
    assert_eq!(invoke(&server, &folder, "web", "write /mnt/data/x y"), "written");
    // The rest of the instance is as before.
    let own = format!("/tmp/kip-fun-{}", std::process::id());
    assert_eq!(invoke(&server, &folder, "web", &format!("write {own} y")), "written");
    fs::remove_file(own).unwrap();
    let info = in_project(&server, &folder, &["nas", "info"]).ok().stdout;
    assert!(info.contains("oss://models/v1") && info.contains("a.nas.example.com:/data"), "{info}");
    // What goes from the file goes from the function.
    let begin = text.find("      nasConfig").unwrap();
    fs::write(folder.join("s.yaml"), &text[..begin]).unwrap();
    in_project(&server, &folder, &["deploy"]).ok();
    assert!(invoke(&server, &folder, "web", "read /home/app/models/weights").contains("FileNotFoundError"));
    for (target, code) in [("/tmp/x", "KW-1071"), ("mnt", "KW-1071")] {
        let text = format!(
            "{}      nasConfig: {{mountPoints: [{{serverAddr: 'a:/b', mountDir: {target}}}]}}\n",
            &text[..begin]
        );
        fs::write(folder.join("s.yaml"), text).unwrap();
        in_project(&server, &folder, &["deploy"]).failed(&["mountDir cannot be used", code]);
    }
}

#[test]
fn a_host_without_mounts_refuses_a_share_with_its_path() {
    let server = Server::with("[functions]\nuser = \"server\"");
    let folder = project(&server, TEMPLATE);
    let share = server.data().join("storage/nas/auto-default/shop").display().to_string();
    in_project(&server, &folder, &["deploy", "-y"]).failed(&["KW-4050", "/mnt/auto", &share, "custom-container"]);
}

/// Makes the wheel of a package `demo` with a value.
fn wheel(folder: &Path, version: &str) {
    fs::create_dir_all(folder).unwrap();
    let script = "import sys, zipfile
folder, version = sys.argv[1:]
with zipfile.ZipFile('%s/demo-%s-py3-none-any.whl' % (folder, version), 'w') as wheel:
    about = 'demo-%s.dist-info/' % version
    wheel.writestr('demo.py', 'VALUE = \"demo %s\"\\n' % version)
    wheel.writestr(about + 'METADATA', 'Metadata-Version: 2.1\\nName: demo\\nVersion: %s\\n' % version)
    wheel.writestr(about + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr(about + 'RECORD', '')
";
    let made = std::process::Command::new("python3").args(["-c", script]).arg(folder).arg(version).status();
    assert!(made.is_ok_and(|status| status.success()));
}

#[test]
fn dependencies_are_installed_into_the_project_and_found_by_the_function() {
    if !has_python() {
        return;
    }
    let has_pip = std::process::Command::new("python3").args(["-m", "pip", "--version"]).output();
    if !has_pip.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: python3 has no pip");
        return;
    }
    let server = Server::start();
    let folder = project(&server, TEMPLATE);
    let in_app = |words: &[&str]| in_project(&server, &folder, words);
    assert!(in_app(&["install"]).ok().stdout.contains("nothing to install"));
    ["1.0", "1.2"].iter().for_each(|version| wheel(&folder.join("code/wheels"), version));
    let funfile = |pin: &str| {
        let text = format!(
            "RUNTIME python3\nWORKDIR /code\nRUN fun-install pip install --no-index --find-links ./wheels demo{pin}\n"
        );
        fs::write(folder.join("code/Funfile"), text).unwrap();
    };
    // The pin of the file does not exist: the nearest that does is named, and nothing is left behind.
    funfile("==9.9");
    in_app(&["install", "shop/web"]).failed(&["KW-1073", "demo==9.9 does not exist for Python 3.", "write demo==1.2"]);
    assert!(!folder.join("code/.fun/python").exists());
    funfile("==1.0");
    let made = in_app(&["install"]).ok();
    assert!(made.stdout.contains("shop-web is installed from code/Funfile  code/.fun/python"), "{made:?}");
    assert!(in_app(&["fun", "install", "shop/web"]).ok().stdout.contains("is up to date with code/Funfile"));
    in_app(&["deploy", "-y"]).ok();
    assert_eq!(invoke(&server, &folder, "shop/web", "import demo"), "demo 1.0");
    funfile("==1.2");
    in_app(&["install", "none", "-t", "template.yml"]).failed(&["KW-1038", "shop-web, shop-other"]);
    assert!(in_app(&["install", "web"]).ok().stdout.contains("is installed from"));
    let plan = in_app(&["plan"]).ok().stdout;
    assert!(plan.contains("the code is another"), "{plan}");
    in_app(&["deploy", "-y"]).ok();
    assert_eq!(invoke(&server, &folder, "shop/web", "import demo"), "demo 1.2");

    // On the share, where the variable says so.
    let on_share = TEMPLATE.replace(
        "        MemorySize: 128\n    other",
        "        MemorySize: 128\n        EnvironmentVariables: {PYTHONUSERBASE: /mnt/auto/python}\n    other",
    );
    fs::write(folder.join("template.yml"), on_share).unwrap();
    fs::remove_dir_all(folder.join("code/.fun")).unwrap();
    let made = in_app(&["install", "shop/web"]).ok();
    assert!(
        made.stdout.contains(".fun/nas/auto-default/shop/python") && made.stderr.contains("kip nas sync"),
        "{made:?}"
    );
    in_app(&["nas", "sync"]).ok();
    in_app(&["deploy", "-y"]).ok();
    assert_eq!(invoke(&server, &folder, "shop/web", "import demo"), "demo 1.2");
    // A command of the file runs only if that was allowed.
    fs::write(folder.join("code/Funfile"), "RUN echo made > made.txt\nCOPY made.txt /code/copied.txt\n").unwrap();
    in_app(&["install", "shop/web"]).failed(&["KW-8032", "RUN echo made"]);
    in_app(&["install", "shop/web", "-y"]).ok();
    assert_eq!(fs::read_to_string(folder.join("code/copied.txt")).unwrap(), "made\n");
    fs::write(folder.join("code/Funfile"), "EXPOSE 80\n").unwrap();
    in_app(&["install"]).failed(&["KW-1075", "Funfile:1", "EXPOSE"]);
}

#[test]
fn a_function_runs_in_the_foreground_and_a_change_is_a_new_version() {
    if !has_python() {
        return;
    }
    let server = Server::start();
    let folder = project(&server, TEMPLATE);
    let twin = folder.join(".fun/nas/auto-default/shop");
    fs::create_dir_all(&twin).unwrap();
    fs::write(twin.join("name"), "twin").unwrap();
    let in_app = |words: &[&str]| in_project(&server, &folder, words);
    let once = in_app(&["local", "invoke", "shop/web", "-e", "say hello"]).ok();
    assert_eq!(once.stdout, "VERSION said hello");
    assert!(once.stderr.contains("hello") && once.stderr.contains("FC Invoke Start RequestId"), "{once:?}");
    let share = in_app(&["s", "local", "invoke", "shop/web", "-e", "read /mnt/auto/name"]).ok();
    assert_eq!(share.stdout, "twin", "the project's own copy of the share");
    in_app(&["local", "invoke"]).failed(&["KW-7007", "kip local invoke shop/web|shop/other"]);
    assert_eq!(server.ask(&["ls"]), json!([]), "nothing is on the other server");

    let out = server.folder().join("local.out");
    let mut command = kip(&server.data());
    command.args(["-o", "json", "fun", "local", "start", "shop/web", "-p", "0"]).current_dir(&folder);
    command
        .stdout(fs::File::create(&out).unwrap())
        .stderr(fs::File::create(server.folder().join("local.err")).unwrap());
    let mut child = ChildGuard::spawn(&mut command);
    let served: Value = until("the function is served", || {
        let text = fs::read_to_string(&out).unwrap();
        assert!(child.ended().is_none(), "{}", fs::read_to_string(server.folder().join("local.err")).unwrap());
        serde_json::from_str(text.split_inclusive("]\n").next()?).ok()
    });
    let url = served[0]["url"].as_str().unwrap().to_owned();
    let address = url.trim_start_matches("http://").split('/').next().unwrap().parse().unwrap();
    // An event function answers calls over HTTP only with a trigger: the proxy path of the vendor's own protocol is the API's.
    assert!(url.ends_with("/f/shop-web/"), "{served}");
    let said = |version: &str| {
        let answer = call(address, "GET", "/f/shop-web/", "", b"");
        answer.status() == 200 && answer.text().contains(version)
    };
    let with_trigger = TEMPLATE.replace(
        "        MemorySize: 128\n    other",
        "        MemorySize: 128\n      Events: {http: {Type: HTTP, Properties: {AuthType: ANONYMOUS, Methods: [GET]}}}\n    other",
    );
    fs::write(folder.join("code/index.py"), "def handler(environ, start):\n    print('called', flush=True)\n    start('200 OK', [])\n    return [b'first']\n").unwrap();
    fs::write(folder.join("template.yml"), with_trigger).unwrap();
    until_true("the first version answers", || said("first"));
    until_true("its output is shown", || fs::read_to_string(&out).unwrap().contains("called"));
    fs::write(
        folder.join("code/index.py"),
        "def handler(environ, start):\n    start('200 OK', [])\n    return [b'second']\n",
    )
    .unwrap();
    until_true("the second version answers", || said("second"));
    kill(child.pid(), rustix::process::Signal::INT);
    until("the command ends", || child.ended());
    assert!(std::net::TcpStream::connect(address).is_err(), "nothing serves any more");
}

#[test]
fn lines_of_fun_are_carried_out() {
    if !has_python() {
        return;
    }
    let server = Server::start();
    let folder = project(&server, TEMPLATE);
    let in_app = |words: &[&str]| in_project(&server, &folder, words);
    assert!(in_app(&["fun", "validate"]).ok().stdout.contains("+ function shop-web"));
    in_app(&["fun", "deploy", "shop/web", "-y"]).ok();
    let names = |server: &Server| -> Vec<Value> {
        server.ask(&["ls"]).as_array().unwrap().iter().map(|one| one["name"].clone()).collect()
    };
    assert_eq!(names(&server), ["shop-web"]);
    in_app(&["fun", "deploy", "shop", "-y"]).ok();
    assert_eq!(names(&server), ["shop-other", "shop-web"]);
    assert!(in_app(&["fun", "invoke", "shop/web", "-e", "say one"]).ok().stdout.contains("said one"));
    in_app(&["fun", "nas", "info"]).ok();
    in_app(&["fun", "edge"]).failed(&["KW-7007", "`fun edge`", "nas init|info|sync|ls"]);
    // Names of functions of services, and what of the output is meant.
    invoke(&server, &folder, "shop/web", "say two");
    let lines = |words: &[&str]| server.kip(&[&["logs", "shop$web"], words].concat()).ok().stdout;
    until_true("the output is there", || lines(&[]).contains("two"));
    assert!(lines(&["--search", "one"]).contains("one") && !lines(&["--search", "one"]).contains("two"));
    assert_eq!(lines(&["--until", "2020-01-01T00:00:00Z"]), "");
    assert!(lines(&["--until", "0s", "-n", "1", "--search", "t"]).lines().count() == 1);
    let s = in_app(&["s", "shop/web", "logs", "-s", "2020-01-01T00:00:00Z", "-e", "2020-01-02T00:00:00Z"]).ok();
    assert_eq!(s.stdout, "");
    assert!(in_app(&["s", "shop/web", "logs", "--search", "two"]).ok().stdout.contains("two"));
}

#[test]
fn code_comes_from_an_address_or_a_bucket() {
    if !has_python() {
        return;
    }
    let server = Server::start();
    let folder = project(&server, TEMPLATE);
    fs::remove_file(folder.join("template.yml")).unwrap();
    let script = "import sys, zipfile
with zipfile.ZipFile(sys.argv[1], 'w') as archive:
    archive.write('code/index.py', 'index.py')
";
    let zip = |path: &Path| {
        let made = std::process::Command::new("python3").args(["-c", script]).arg(path).current_dir(&folder).status();
        assert!(made.is_ok_and(|status| status.success()));
    };
    let bucket = server.data().join("storage/oss/apps/v1");
    fs::create_dir_all(&bucket).unwrap();
    zip(&bucket.join("web.zip"));
    let text = |code: &str| {
        format!(
            "edition: 3.0.0\nname: a\nresources:\n  web:\n    component: fc3\n    props:\n      region: r\n      functionName: web\n      runtime: python3.10\n      handler: index.handler\n      timeout: 30\n      code: {code}\n"
        )
    };
    let in_app = |words: &[&str]| in_project(&server, &folder, words);
    fs::write(folder.join("s.yaml"), text("{ossBucketName: apps, ossObjectName: v1/web.zip}")).unwrap();
    in_app(&["deploy"]).ok();
    assert_eq!(invoke(&server, &folder, "web", "say bucket"), "VERSION said bucket");
    assert!(in_app(&["deploy"]).ok().stdout.contains("is as the file has it"));
    fs::write(folder.join("s.yaml"), text("{ossBucketName: apps, ossObjectName: v1/none.zip}")).unwrap();
    in_app(&["deploy"]).failed(&["KW-1035", "s.yaml:12:13", "storage/oss/apps/v1/none.zip"]);
    // The API reads buckets as well.
    let body = json!({"functionName": "api", "runtime": "python3.10", "handler": "index.handler", "code": {"ossBucketName": "apps", "ossObjectName": "v1/web.zip"}});
    let create = |body: &Value| {
        let headers = format!("authorization: Bearer {}\r\ncontent-type: application/json\r\n", server.key);
        call(server.api, "POST", "/2023-03-30/functions", &headers, body.to_string().as_bytes())
    };
    assert_eq!(create(&body).status(), 200);
    std::os::unix::fs::symlink("/etc/passwd", bucket.join("out.zip")).unwrap();
    for object in ["v1/none.zip", "../../../admin.key", "v1/out.zip"] {
        let mut body = body.clone();
        body["functionName"] = "other".into();
        body["code"]["ossObjectName"] = object.into();
        let refused = create(&body);
        assert!(refused.status() == 400 && refused.text().contains("InvalidArgument"), "{object}: {refused:?}");
    }

    // An address, by way of another one.
    zip(&folder.join("web.zip"));
    let archive = fs::read(folder.join("web.zip")).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = crate::support::apart(move || {
        for stream in listener.incoming().take(3) {
            let mut stream = stream.unwrap();
            let mut head = [0; 1024];
            let read = std::io::Read::read(&mut stream, &mut head).unwrap();
            let answer = match head[..read].starts_with(b"GET /first ") {
                true => b"HTTP/1.1 302 Found\r\nlocation: /web.zip\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                    .to_vec(),
                false if head[..read].starts_with(b"GET /web.zip ") => {
                    let head =
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", archive.len());
                    [head.as_bytes(), &archive].concat()
                }
                false => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec(),
            };
            std::io::Write::write_all(&mut stream, &answer).unwrap();
        }
    });
    fs::write(folder.join("s.yaml"), text(&format!("http://{address}/first"))).unwrap();
    let plan = in_app(&["plan"]).ok().stdout;
    assert!(plan.contains("nothing changes"), "the archive is the same: {plan}");
    fs::write(folder.join("s.yaml"), text(&format!("http://{address}/none"))).unwrap();
    in_app(&["plan"]).failed(&["KW-1035", "404", "curl"]);
    serving.join().unwrap();
}

#[test]
fn functions_with_one_port_take_turns() {
    if !has_python() {
        return;
    }
    let server = Server::start();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let program = |name: &str| {
        let folder = server.folder().join(name);
        fs::create_dir_all(&folder).unwrap();
        let text = format!(
            "from http.server import *\nclass H(BaseHTTPRequestHandler):\n    def do_GET(self):\n        self.send_response(200)\n        self.end_headers()\n        self.wfile.write(b'{name}')\nHTTPServer(('127.0.0.1', {port}), H).serve_forever()\n"
        );
        fs::write(folder.join("app.py"), text).unwrap();
        format!("  {name}:\n    dir: ./{name}\n    run: python3 app.py\n    port: {port}\n")
    };
    let manifest = format!("api: kip/v1\nfunctions:\n{}{}", program("one"), program("two"));
    server.deploy(&manifest);
    let get = |name: &str| call(server.gateway, "GET", &format!("/f/{name}/"), "", b"").text();
    for _ in 0..2 {
        assert_eq!((get("one"), get("two")), ("one".to_owned(), "two".to_owned()), "{}", server.log());
    }
    let why = server.kip(&["why", "two"]).ok().stdout;
    assert!(why.contains("its port"), "{why}");
    // A new version of the one that has the port.
    fs::write(server.folder().join("two/more.txt"), "x").unwrap();
    server.deploy(&manifest);
    assert_eq!(get("two"), "two");
    // Another program holds it.
    server.kip(&["rm", "one", "two", "-y"]).ok();
    server.until_no_instance();
    let _holder = until("the port is free", || std::net::TcpListener::bind(("127.0.0.1", port)).ok());
    server.deploy(&manifest);
    let refused = call(server.gateway, "GET", "/f/one/", "", b"");
    assert!(refused.status() >= 500 && refused.text().contains("KW-4007"), "{refused:?}");
}

#[test]
fn a_role_that_is_mapped_gives_the_function_its_credentials() {
    if !has_python() {
        return;
    }
    let server = Server::start();
    let template = TEMPLATE.replace("{NasConfig: Auto}", "{Role: 'acs:ram::1:role/reader'}");
    let folder = project(&server, &template);
    fs::write(folder.join("code/index.py"), "import os\ndef handler(event, context):\n    return '%s %s %s' % (context.credentials.access_key_id, context.credentials.access_key_secret, os.environ.get('ALIBABA_CLOUD_SECURITY_TOKEN'))\n").unwrap();
    let in_app = |words: &[&str]| in_project(&server, &folder, words);
    in_app(&["deploy", "-y"]).ok();
    assert_eq!(invoke(&server, &folder, "shop/web", "x"), "  None");
    let mapped = ["deploy", "-y", "--role-map", "reader=oss"];
    in_app(&mapped).failed(&["KW-1076", "oss.id", "kip secret set"]);
    for (name, value) in [("oss.id", "the-id"), ("oss.secret", "the-secret")] {
        fs::write(folder.join("value"), value).unwrap();
        in_app(&["secret", "set", name, "--from-file", "value"]).ok();
    }
    in_app(&mapped).ok();
    assert_eq!(invoke(&server, &folder, "shop/web", "x"), "the-id the-secret None");
    assert!(in_app(&["deploy", "-y"]).ok().stdout.contains("is as the file has it"));
    // The value is in no rendering.
    let shown = server.api_get("/2023-03-30/functions/shop-web").text();
    assert!(shown.contains("acs:ram::1:role/reader") && !shown.contains("the-secret"), "{shown}");
    // Without its role it has none.
    fs::write(folder.join("template.yml"), TEMPLATE.replace("{NasConfig: Auto}", "{Description: x}")).unwrap();
    in_app(&["deploy", "-y"]).ok();
    assert_eq!(invoke(&server, &folder, "shop/web", "x"), "  None");
}

#[test]
fn types_of_cards_are_those_of_the_settings() {
    let settings =
        "[gpu_types]\n\"fc.gpu.tesla.1\" = \"T4\"\n\n[[device]]\nname = \"gpu0\"\nmemory = \"16GiB\"\ntype = \"T4\"\n";
    let server = Server::with(settings);
    let folder = project(&server, TEMPLATE);
    fs::remove_file(folder.join("template.yml")).unwrap();
    let text = |kind: &str| {
        format!(
            "edition: 3.0.0\nname: a\nresources:\n  web:\n    component: fc3\n    props:\n      region: r\n      functionName: web\n      runtime: python3.10\n      handler: index.handler\n      code: ./code\n      gpuConfig: {{gpuMemorySize: 8192, gpuType: {kind}}}\n"
        )
    };
    fs::write(folder.join("s.yaml"), text("fc.gpu.ada.1")).unwrap();
    let plan = in_project(&server, &folder, &["plan"]).ok().stdout;
    assert!(plan.contains("any card with that memory is used"), "{plan}");
    fs::write(folder.join("s.yaml"), text("fc.gpu.tesla.1")).unwrap();
    let plan = in_project(&server, &folder, &["plan"]).ok().stdout;
    assert!(plan.contains("fc.gpu.tesla.1 is a card of the type T4") && !plan.contains("any card"), "{plan}");
    in_project(&server, &folder, &["deploy"]).ok();
    let function = server.api_get("/api/v1/functions/web").json();
    assert!(function.to_string().contains("\"T4\""), "{function}");
}
