"""What docs/access.md and docs/ci.md tell a reader to type does what they say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import Program
from tvix_store.access.identity_rule import IdentityRule
from tvix_store.model.grant import Scope

DOCS = Path(__file__).parents[2] / "docs"
RULES = [IdentityRule.parse(text) for text in re.findall(r"--oidc-rule '(issuer=https[^']*)'", (DOCS / "ci.md").read_text())]
GITHUB = {
    "iss": "https://token.actions.githubusercontent.com",
    "aud": "https://cache.example.org",
    "sub": "repo:my-org/app:ref:refs/heads/main",
    "repository": "my-org/app",
    "repository_owner": "my-org",
    "repository_owner_id": "1234567",
    "ref": "refs/heads/main",
    "event_name": "push",
}
"""As GitHub documents the claims of a job."""
GITLAB = {
    "iss": "https://gitlab.example.org",
    "aud": "https://cache.example.org",
    "sub": "project_path:my-group/app:ref_type:branch:ref:main",
    "project_path": "my-group/app",
    "ref": "main",
    "ref_type": "branch",
    "ref_protected": "true",
}
"""As GitLab documents them."""


@pytest.mark.parametrize(
    ("claims", "others"),
    [
        (
            GITHUB,
            [
                {"repository": "my-org-evil/app"},
                {"repository_owner_id": "7654321"},
                {"ref": "refs/pull/1/merge"},
                {"ref": "refs/heads/mine"},
                {"aud": "https://other.example.org"},
            ],
        ),
        (GITLAB, [{"project_path": "my-group-evil/app"}, {"ref_protected": "false"}, {"aud": "https://other.example.org"}]),
    ],
    ids=["GitHub", "GitLab"],
)
def test_a_rule_of_the_page_lets_the_jobs_in_that_it_should_and_no_others(
    claims: dict[str, Any], others: list[dict[str, Any]]
) -> None:
    [rule] = [rule for rule in RULES if rule.issuer == claims["iss"]]
    assert rule.scope is Scope.PUSH
    assert rule.matches(claims)
    for other in others:
        assert not rule.matches(claims | other), other


def test_the_commands_of_the_page_make_list_and_revoke_tokens(tvix_store: Program) -> None:
    commands = re.findall(r"^    tvix-store (token .*)$", (DOCS / "access.md").read_text(), re.MULTILINE)
    assert len(commands) >= 5
    made: list[str] = []
    for command in commands:
        arguments = shlex.split(command)
        if arguments[1] == "revoke":
            arguments[2:] = made[: len(arguments) - 2]
        ended = tvix_store.run(*arguments)
        assert ended.code == 0, ended
        if arguments[1] == "create":
            made.append(ended.lines[0].split("_")[1])
    assert len(made) == 2
    assert tvix_store("token", "list") == ""


def test_each_option_and_scope_that_the_pages_name_exists(tvix_store: Program) -> None:
    known = (
        tvix_store("daemon", "--help")
        + tvix_store("copy", "--help")
        + tvix_store("token", "create", "--help")
        + tvix_store("token", "list", "--help")
    )
    text = (DOCS / "access.md").read_text() + (DOCS / "ci.md").read_text()
    named = set(re.findall(r"`(--[a-z-]+)", text)) | {"--private", "--oidc-rule"}
    assert {option for option in named if option not in known} == set()
