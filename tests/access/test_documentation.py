"""docs/access.md and SECURITY.md are true: their commands run, and what they name is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from taskd.config import SETTINGS, load, validate_start
from taskd.domain.token import TOKEN
from tests.access.certificates import Authority
from tests.cli.test_commands import taskd

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "access.md").read_text("utf-8")
SECURITY = (ROOT / "SECURITY.md").read_text("utf-8")
TOKENS, SERVING = (block.splitlines() for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))


async def test_the_commands_for_tokens_run(database_url: str) -> None:
    for line in TOKENS:
        name, *words = shlex.split(line)
        assert name == "taskd"
        ended = await taskd(*words, TASKD_DATABASE_URL=database_url)
        assert ended.code == 0, ended.err
        assert bool(TOKEN.fullmatch(ended.out.strip())) is (words[1] == "create")


def test_the_commands_that_serve_are_good_settings(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = {"ca.pem": authority.file}
    for name in ("api", "gw"):
        files[f"{name}.pem"], files[f"{name}.key"] = authority.sign(name)
    for line in SERVING:
        words = shlex.split(line)
        at = words.index("taskd")
        environment = dict(word.split("=", 1) for word in words[:at])
        for name, value in environment.items():
            environment[name] = str(files.get(value, value)).replace("tk_…", "tk_" + "0" * 43)
        assert words[at + 1] == "serve"
        flags = dict(zip(words[at + 2 :: 2], words[at + 3 :: 2], strict=True))
        settings = load({flag[2:].replace("-", "_"): value for flag, value in flags.items()}, environment)
        validate_start(settings)


def test_what_is_named_is_there() -> None:
    for page in (PAGE, SECURITY):
        for name in re.findall(r"`(TASKD_[A-Z_]+)", page):
            assert name == "TASKD_TOKEN" or name in {setting.variable for setting in SETTINGS.values()}, name
    for path in re.findall(r"\]\(([^)#]+)\)", SECURITY) + re.findall(r"`(tests/[^`]+)`", SECURITY):
        assert (ROOT / path).exists(), path
