"""The mistakes that people make at the command line: what `test_mistakes.py` walks through.

A mistake is one that many commands know, or one command alone. `HELLO` is a store path of the store that they work on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

HASH = "mg1pblc31zszvv5hzmq0c3c5dhc3pijv"
HELLO = f"{HASH}-hello"
NOWHERE = "0" * 32
DIGEST = "b3:" + "0" * 64
_READERS = ("info", "ls", "cat", "nar-hash", "stat")
NOBODY = "grpc+http://localhost:1"

COMMANDS: dict[str, str] = {
    "daemon": "",
    "import": "tree",
    "list": "",
    "info": HELLO,
    "ls": HELLO,
    "cat": f"{HELLO}/greeting",
    "export": f"{HELLO} out",
    "copy": f"--to ./other {HELLO}",
    "push": "",
    "hook": "",
    "watch-store": "",
    "use": "http://localhost:1 --dry-run",
    "check": "",
    "backup": "./backup",
    "gc": "--dry-run",
    "pin add": f"v1 {HELLO}",
    "pin remove": "v1",
    "pin list": "",
    "delete": HELLO,
    "nar-hash": HELLO,
    "stat": f"{HELLO}/greeting",
    "path-info get": HELLO,
    "path-info put": "path-info.json",
    "path-info rewrite": f"--directory-size-rule snix --dry-run {HELLO}",
    "path-info sign": f"--key-file secret-key {HELLO}",
    "path-info verify": HELLO,
    "key generate": "cache-1",
    "key public": "secret-key",
    "token create": "--scope pull",
    "token list": "",
    "token revoke": "4wy8b1c0zzk3",
    "stats": "",
    "help": "import",
    "config show": "",
    "config check": "",
    "completion": "bash",
}
"""Each command, with arguments that are right."""
WITHOUT_STORE = {
    "push",
    "hook",
    "watch-store",
    "use",
    "key generate",
    "key public",
    "help",
    "config show",
    "config check",
    "completion",
}
MAKES_STORES = {"daemon", "import", "path-info put", "token create"}
"""Commands that make a store where there is none."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One way in which a person goes wrong.

    about: What is wrong, as a heading.
    tries: The words behind the program's name, one list for each command that is tried.
    as_stranger: Whether the user is one who may not read the files.
    """

    about: str
    tries: Sequence[str]
    as_stranger: bool = False


def paths(template: str) -> list[str]:
    """The commands that take a PATH, with this one in place of `HELLO`."""
    return [
        f"{words} {arguments.replace(f'{HELLO}/greeting', HELLO).replace(HELLO, template)}"
        for words, arguments in COMMANDS.items()
        if HELLO in arguments
    ]


def with_store(address: str, *without: str) -> list[str]:
    """The commands that open a store, at this address."""
    left_out = WITHOUT_STORE | set(without)
    return [f"{words} --store {address} {arguments}".strip() for words, arguments in COMMANDS.items() if words not in left_out]


def mistakes() -> Iterator[Mistake]:
    """All of them, in the order of the file."""
    yield Mistake("No command, or an unknown one", ["lss", "mount", "login", "path-info singn", "add", "serve", "fsck", "put"])
    yield Mistake("An unknown option", [f"{words} --nonsense" for words in COMMANDS])
    yield Mistake("A missing argument", [words for words, arguments in COMMANDS.items() if arguments and words not in _NEED_NONE])
    yield Mistake(
        "An argument too many", [f"{w} {a} extra extra".replace("  ", " ") for w, a in COMMANDS.items() if w not in _MANY_ARGUMENTS]
    )
    yield Mistake("A store that is not there", with_store("./nowhere", *MAKES_STORES))
    yield Mistake("A store that is a file", with_store("./file", "daemon"))
    yield Mistake("A store that is another directory", with_store("./tree", "daemon", "token create", "token list", "token revoke"))
    yield Mistake("A named cache that is not there", ["list --store local://{here}/store?cache=team-b"])
    yield Mistake("Nobody listens", with_store(NOBODY, "daemon", "token create", "token list", "token revoke"))
    yield Mistake("Nobody listens, elsewhere", _NOBODY)
    yield Mistake("Addresses of other programs, and typing mistakes", [f"list --store {address}" for address in _ADDRESSES])
    yield Mistake("A path that the store lacks", paths(f"{NOWHERE}-hello"))
    yield Mistake("A wrong name behind a right hash", paths(f"/nix/store/{HASH}-goodbye"))
    yield Mistake("A path on the disk where a store path is wanted", paths("./tree"))
    yield Mistake("A name that is not a store path", paths("hello"))
    yield Mistake("Texts that are almost store paths", [f"info {text}" for text in _ALMOST])
    yield Mistake("A path inside that is not there", [f"{words} {HELLO}/nope" for words in _READERS])
    yield Mistake("Paths inside that are of another kind", _INSIDE)
    yield Mistake("A digest that the store lacks", [f"{words} {DIGEST}" for words in _READERS])
    yield Mistake("A malformed digest", [f"{words} b3:00" for words in _READERS])
    yield Mistake("A file that is not there", _with_file("nope"))
    yield Mistake("A directory where a file is wanted", _with_file("tree"))
    yield Mistake("A file that this user may not read", _with_file("unreadable"), as_stranger=True)
    yield Mistake("A place that this user may not write to", _WRITES, as_stranger=True)
    yield Mistake("An empty file", _with_file("empty"))
    yield Mistake("A target that is there already", ["export {hello} tree", "key generate cache-1 --out secret-key"])
    yield Mistake("Importing", _IMPORTS)
    yield Mistake("Copying", _COPIES)
    yield Mistake("Sizes, times and numbers", _NUMBERS)
    yield Mistake("Keys and tokens", _KEYS)
    yield Mistake("Pins, and deleting", _PINS)
    yield Mistake("Options that do not go together", _TOGETHER)
    yield Mistake("The daemon", _DAEMON)
    yield Mistake("Configuration", _CONFIGURATION)
    yield Mistake("What is empty or odd says where", _EMPTY)


_NEED_NONE = {"gc", "help", "token create"}
_MANY_ARGUMENTS = {
    "import",
    "cat",
    "list",
    "copy",
    "push",
    "check",
    "pin add",
    "delete",
    "path-info get",
    "path-info rewrite",
    "path-info sign",
    "path-info verify",
    "token revoke",
    "config check",
    "config show",
}
_NOBODY = [
    "list --store grpc+unix:///nowhere/socket",
    "list --store grpc+unix://{here}/file",
    "list --store grpc+http://nowhere.invalid:8000",
    "list --store grpc+https://localhost:1",
    "list --store connect+http://localhost:1",
    "copy --from nix+http://localhost:1?require-signatures=false {hello}",
    "copy --to grpc+http://localhost:1 {hello}",
    "copy --from file:///nowhere?require-signatures=false {hello}",
]
_ADDRESSES = [
    "grpc://localhost:8000",
    "grpcs://localhost:8000",
    "http://localhost:8000",
    "https://cache.example.org",
    "localhost:8000",
    "localhost",
    "store",
    "~/store",
    "memory:",
    "memroy://",
    "local://store",
    "local:store",
    "redb:/var/lib/store",
    "sled:///var/lib/store",
    "objectstore+file:/var/lib/store",
    "objectstore+s3://bucket?regoin=eu-west-1",
    "objectstore+gs:///path",
    "objectstore+file:/var/lib/store?region=x",
    "s3://bucket",
    "bigtable://project",
    "nix+https://cache.nixos.org",
    "file:///srv/cache",
    "ssh://host",
    "ssh-ng://host",
    "daemon",
    "auto",
    "unix:///run/socket",
    "unix:/run/socket",
    "grpc+unix://run/socket",
    "grpc+http://",
    "grpc+http://localhost:eighty",
    "grpc+http://localhost:1/path",
    "grpc+http://localhost:1?dialect=nix",
    "grpc+http://localhost:1?wait=1",
    "local:///nowhere?compression=3",
    "local:///nowhere?chunk_average=much",
    "memory:///path",
]
_ALMOST = [
    "",
    "/nix/store",
    "/nix/store/",
    "/nix/store/hello",
    "/etc/passwd",
    "./nope",
    "result",
    "tree/bin",
    f"{HASH[:-1]}-hello",
    f"{HASH}hello",
    f"{HASH.upper()}-hello",
    "e" * 32,
    f"{'e' * 32}-hello",
    f"{HASH}-",
    f"{HASH}-he%llo",
    f"/gnu/store/{HELLO}",
    "sha256:0d2810rdlb2bldjaqr4fdxh3703ha6fgxpbgvdzn7z8p0j2am9mp",
    "sha256-qvsfaaz01mGkLaHW1JcTNyqjWgMV1qVTQVTqf0ZDWIE=",
    "https://cache.nixos.org",
    "nixpkgs#hello",
]
_INSIDE = [
    "cat {hello}",
    "cat {hello}/bin",
    "cat {hello}/../x",
    "ls {hello}/greeting/x",
    "cat {hello}/out",
    "cat {hello}/loop",
    "stat {hello}",
    "check {hello}/bin",
    "path-info get {hello}/bin",
    "pin add v1 {hello}/bin",
    "delete {hello}/bin",
    "copy --to ./other {hello}/bin",
]
_WRITES = [
    "import tree",
    "list --store ./private/store",
    "import tree --store ./private/store",
    "export {hello} private/out",
    "export {hello} --format nar private/out",
    "backup private/backup",
    "key generate cache-1 --out private/key",
    "token create --scope pull --token-file private/tokens",
    "copy --to file://{here}/private/cache {hello}",
    "copy --to ./private/store {hello}",
]
_IMPORTS = [
    "import",
    "import tree --name",
    "import tree --name ''",
    "import ''",
    "import .dot",
    "import /",
    "import 'with space'",
    "import fifo",
    "import tree file --name x",
    "import --nar -",
    "import --nar file --name x",
    "import --tar file --name x",
    "import --tar tree.tar file",
    "import --nar file --tar file",
    "import --flat tree",
    "import --nar file --flat",
    "import /nix/store/nope",
    "import tree --store ./new",
    "import nope --store ./new2",
    "import .dot --store ./new2",
    "import tree --store memory:",
]
_COPIES = [
    "copy {hello}",
    "copy --to ./other",
    "copy --to ./other --all {hello}",
    "copy --to ''  {hello}",
    "copy --to ./store {hello}",
    "copy --from ./nowhere --to ./other2 --all",
    "copy --to https://cache.example.org {hello}",
    "copy --to nix+http://localhost:1 {hello}",
    "copy --from nix+https://cache.example.org {hello}",
    "copy --from https://cache.nixos.org {hello}",
    "copy --from file:///nowhere {hello}",
    "copy --from-nix",
    "copy --from-nix tree",
    "copy --from-nix --to ./other {hello}",
    "copy --from-json file",
    "copy --to ./other --jobs 0 {hello}",
    "copy --to ./other --trusted-public-keys nokey {hello}",
    "copy --to ./other --require-signatures {hello}",
    "backup ./store",
    "backup ./tree",
    "backup ./store/backup",
    "backup ./backup --store memory:",
    "backup ''",
]
_NUMBERS = [
    "gc --keep-for 90",
    "gc --keep-for 90x",
    "gc --keep-for 5m",
    "gc --keep-for -1d",
    "gc --max-size lots",
    "gc --max-size -5",
    "gc --max-size 5Q",
    "gc --min-free 1.5.5G",
    "gc --grace soon",
    "pin add v1 {hello} --keep-days 0",
    "pin add v1 {hello} --keep-revisions many",
    "token create --scope pull --expires yesterday",
    "token create --scope pull --expires 2020-01-01",
    "daemon --priority -1",
    "daemon --workers 0",
    "daemon --max-nar-size 1GB",
    "daemon --transfer-memory 1",
    "daemon --shutdown-timeout -1",
    "daemon --gc-interval often",
    "daemon --scrub-days -1",
    "daemon --cache 'a quota=big'",
    "daemon --cache 'a retention=1m'",
]
_KEYS = [
    "key generate ''",
    "key generate a:b",
    "key public file",
    "key public public-key",
    "path-info sign {hello} --key-file file",
    "path-info sign {hello} --key-file public-key",
    "path-info sign {hello}",
    "path-info sign {hello} --key-file credential:key",
    "path-info verify {hello} --trusted-public-keys nokey",
    "path-info verify {hello} --trusted-public-keys cache-1:AAAA",
    "path-info verify {hello}  --trusted-public-keys name:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "path-info put file",
    "path-info put",
    "token create",
    "token create --scope read",
    "token create --scope pull --cache 'a b'",
    "token create --scope pull --store memory:",
    "token list --token-file nope",
    "token list --token-file file",
    "token list --token-file tree",
    "token revoke nope",
    "token revoke 4wy8b1c0zzk3",
]
_PINS = [
    "pin add 'a b' {hello}",
    "pin remove nope",
    "pin list nope",
    "pin list 'a b'",
    "pin list --store memory:",
    "delete {needed}",
    "gc --store memory:",
    "gc --store grpc+http://localhost:1",
]
_TOGETHER = [
    "delete {hello} --recursive --ignore-references",
    "check --repair",
    "check --from ./other",
    "check --trusted-public-keys a:b",
    "path-info verify",
    "path-info verify --all {hello}",
    "path-info rewrite --all",
    "path-info rewrite --directory-size-rule nix --all",
    "export {hello} -",
    "export {hello} out --format zip",
    "export {hello} file/out",
    "completion tcsh",
]
_DAEMON = [
    "daemon --port 8080",
    "daemon -p 8080",
    "daemon --host 0.0.0.0",
    "daemon --bind 0.0.0.0:8080",
    "daemon --listen localhost:8080",
    "daemon --listen-address 8080",
    "daemon --listen-address :8080",
    "daemon --listen-address localhost",
    "daemon --listen-address http://localhost:8080",
    "daemon --listen-address localhost:99999",
    "daemon --listen-address 0.0.0.0:8080",
    "daemon --listen-address 192.0.2.1:8080",
    "daemon --listen-address sd-listen",
    "daemon --substituters cache.nixos.org",
    "daemon --substituters ftp://cache.example.org",
    "daemon --substituter-public-keys nokey",
    "daemon --tls-certificate file",
    "daemon --tls-certificate nope --tls-key nope",
    "daemon --tls-client-ca file",
    "daemon --tls-client-auth required",
    "daemon --signing-key-file nope",
    "daemon --signing-key-file file",
    "daemon --trusted-public-keys nokey",
    "daemon --require-signatures",
    "daemon --allow-origin example.org",
    "daemon --allow-host 'a b'",
    "daemon --trust-proxy proxy",
    "daemon --cache 'a b'",
    "daemon --cache ../a",
    "daemon --cache a --default-cache b",
    "daemon --cache a --cache a",
    "daemon --oidc-rule nonsense",
    "daemon --gc-keep-for 90d",
    "daemon --gc-interval 1d --store memory:",
    "daemon --log-level loud",
    "daemon --workers 4 --store memory:",
    "daemon --store ./file",
    "daemon --store ./tree",
    "daemon extra",
]
_CONFIGURATION = [
    "list --config nope.toml",
    "list --config tree",
    "list --config broken.toml",
    "list --config unknown.toml",
    "list --config wrong.toml",
    "config show nonsense",
    "config show --config nope.toml",
    "config check nope.toml",
    "config check broken.toml unknown.toml wrong.toml",
    "list --store-composition nope.toml",
    "list --store-composition broken.toml",
    "list --store-composition unknown.toml",
    "list --store-composition stores.toml",
    "list --store-composition snix.toml",
    "list --config stores.toml",
    "config check stores.toml snix.toml absent.toml",
    "list --store-composition absent.toml",
    "import tree --store-composition absent.toml",
    "backup ./backup --store-composition apart.toml",
    "config check --open --store-composition away.toml",
    "list --store-dir nix",
    "list --store-dir /gnu/store",
    "list --debug=1",
]
_EMPTY = [
    "list --store memory:",
    "list --json --store memory:",
    "list nothing-*",
    "check --store memory:",
    "path-info verify --all --store memory:",
    "path-info rewrite --all --directory-size-rule snix --store memory:",
    "copy --all --from memory: --to ./other",
    "pin list --store ./other",
    "token list",
    "config check",
]


def _with_file(file: str) -> list[str]:
    """The commands that read a file."""
    return [
        f"import {file}",
        f"import --nar {file} --name x",
        f"import --tar {file} --name x",
        f"copy --from-json {file}",
        f"key public {file}",
        f"path-info put {file}",
        f"path-info sign {{hello}} --key-file {file}",
        f"copy --to file://{{here}}/cache?secret-key={{here}}/{file} {{hello}}",
        f"daemon --signing-key-file {file}",
        f"daemon --cache 'a signing-key-file={file}'",
        f"list --config {file}",
        f"config check {file}",
        f"token list --token-file {file}",
        f"list --store grpc+https://localhost:1?ca={{here}}/{file}",
        *([] if file == "empty" else [f"daemon --tls-certificate {file} --tls-key {file}"]),
    ]
