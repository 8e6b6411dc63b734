"""What a policy lets in, what it refuses, and how a refusal is told."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from cloud_recognizer.config import CloudConfig
from cloud_recognizer.policy import CALLS, CONTEXT, EXCEPTION, NOTICE, PURPOSE, Policy
from mien.bundle import Bundle
from mien.declaration import PROHIBITED, ContextOfUse, LegalException
from mien.errors import ConfigError, PolicyError
from mien.messages.upward import Hello, upward_to_proto
from mien.v1 import recognition_pb2 as pb
from tests.support.recognizer import Device, hello, payload, running_recognizer

ROOT = Path(__file__).parents[3]
GRANTED = {
    "context": "workplace",
    "kind": "safety",
    "devices": ["crane-*"],
    "reason": "fatigue of crane drivers",
}
STRICT = {"contexts": ["retail"], "exceptions": [GRANTED]}


def declares(context: ContextOfUse, device_id: str = "door", **more: Any) -> Hello:
    said = {"purpose": "counting smiles", "notice": "a sign at the door"}
    return Hello(device_id, 1, 0, (), context=context, **(said | more))


def rule_of(policy: Policy, hello: Hello) -> str:
    """The rule that refuses, "" where the device is let in."""
    try:
        policy.admit(hello)
    except PolicyError as error:
        return error.rule
    return ""


@pytest.mark.parametrize("context", ContextOfUse)
def test_without_a_file_all_is_let_in_but_what_the_ai_act_forbids(context: ContextOfUse) -> None:
    refused = rule_of(Policy.lenient(), declares(context, purpose="", notice=""))
    assert refused == (EXCEPTION if context in PROHIBITED else "")


@pytest.mark.parametrize("context", ContextOfUse)
def test_a_file_lets_in_what_it_lists(context: ContextOfUse) -> None:
    refused = rule_of(Policy.parse(STRICT), declares(context))
    expected = EXCEPTION if context in PROHIBITED else CONTEXT
    assert refused == ("" if context is ContextOfUse.RETAIL else expected)


@pytest.mark.parametrize(
    ("device_id", "context", "exception", "granted"),
    [
        ("crane-7", ContextOfUse.WORKPLACE, LegalException.SAFETY, True),
        ("crane-7", ContextOfUse.WORKPLACE, LegalException.MEDICAL, False),
        ("crane-7", ContextOfUse.WORKPLACE, LegalException.NONE, False),
        ("crane-7", ContextOfUse.EDUCATION, LegalException.SAFETY, False),
        ("door", ContextOfUse.WORKPLACE, LegalException.SAFETY, False),
    ],
)
def test_an_exception_holds_for_its_devices_context_and_kind_alone(
    device_id: str, context: ContextOfUse, exception: LegalException, granted: bool
) -> None:
    policy = Policy.parse(STRICT)
    asks = declares(context, device_id, exception=exception)
    assert rule_of(policy, asks) == ("" if granted else EXCEPTION)
    if granted:
        assert policy.admit(asks) == "fatigue of crane drivers"


def test_purpose_and_notice_are_required_unless_the_file_says_otherwise() -> None:
    said = declares(ContextOfUse.RETAIL)
    policy = Policy.parse(STRICT)
    assert rule_of(policy, replace(said, purpose=" ")) == PURPOSE
    assert rule_of(policy, replace(said, notice="")) == NOTICE
    easy = Policy.parse(STRICT | {"require_purpose": False, "require_notice": False})
    assert rule_of(easy, replace(said, purpose="", notice="")) == ""
    crane = declares(ContextOfUse.WORKPLACE, "crane-1", exception=LegalException.SAFETY, purpose="")
    assert rule_of(easy, crane) == PURPOSE, "an exception has a reason"


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (None, "must be a mapping"),
        ({}, "contexts"),
        ({"contexts": []}, "contexts must list at least one"),
        ({"contexts": ["workplace"]}, r"must not list workplace, which .* article 5\(1\)\(f\)"),
        ({"contexts": ["shop"]}, "contexts must be one of undeclared, .*; got 'shop'"),
        ({"contexts": ["home"], "notice": True}, "notice is no setting"),
        ({"contexts": ["home"], "longest_retention_s": -1}, "longest_retention_s must not be -1"),
        ({"contexts": ["home"], "longest_retention_s": math.nan}, "longest_retention_s"),
        ({"contexts": ["home"], "exceptions": {}}, None),
        ({"contexts": ["home"], "exceptions": "all"}, "exceptions must be a list"),
        (STRICT | {"exceptions": ["all"]}, "exceptions, number 1: it must be a mapping"),
        (STRICT | {"exceptions": [GRANTED | {"reason": " "}]}, "number 1: reason must have"),
        (STRICT | {"exceptions": [GRANTED | {"kind": "none"}]}, "kind must be medical or safety"),
        (STRICT | {"exceptions": [GRANTED | {"context": "home"}]}, "needs an exception, got home"),
        (STRICT | {"exceptions": [GRANTED | {"devices": []}]}, "devices must name"),
        (STRICT | {"exceptions": [GRANTED, {"context": "education"}]}, "exceptions, number 2: "),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_the_field(
    document: object, says: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    if says is None:
        assert Policy.load(path).exceptions == []
        return
    with pytest.raises(ConfigError, match=f"(?s)^policy: .*policy.yaml: .*{says}"):
        Policy.load(path)


def test_a_file_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    for content in (b"contexts: [", b"\xff\xfe\x00"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="cannot be read"):
            Policy.load(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        Policy.load(tmp_path / "missing.yaml")


@pytest.mark.parametrize(
    ("settings", "policy", "says"),
    [
        ({"retention_s": 1.0}, {}, "retention_s is 1, .* longest_retention_s is 0"),
        ({"nats": "nats://localhost:4222"}, {}, "retention_s is 60, "),
        ({"label_window_s": 5.0}, {"longest_retention_s": 4}, "label_window_s is 5, "),
        ({"allow_reconstruction": True}, {}, "allow_reconstruction is set"),
        ({}, {"require_audit": True}, "the policy requires an audit"),
        ({"audit_log": Path("a")}, {"require_audit": True}, "the policy requires an audit"),
    ],
)
def test_settings_that_keep_or_show_more_than_the_policy_says_are_refused(
    settings: dict[str, Any], policy: dict[str, Any], says: str
) -> None:
    config = CloudConfig(Path("b"), **settings)
    with pytest.raises(ConfigError, match=says):
        Policy.parse({"contexts": ["home"]} | policy).check(config)
    Policy.parse({"contexts": ["home"]}).check(CloudConfig(Path("b")))


async def test_a_recognizer_does_not_start_against_its_policy(
    bundles: Path, tmp_path: Path
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("contexts: [home]", encoding="utf-8")
    with pytest.raises(ConfigError, match="label_window_s is 60"):
        async with running_recognizer(bundles, policy=path, label_window_s=60.0):
            pass


async def test_a_refused_device_is_told_why_and_counted_and_others_are_served(
    bundles: Path, bundle: Bundle, tmp_path: Path
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(STRICT), encoding="utf-8")
    shop = replace(hello(bundle), context=ContextOfUse.RETAIL)
    async with running_recognizer(bundles, policy=path) as running:
        refused = Device(running.stub)
        await refused.call.write(upward_to_proto(replace(shop, context=ContextOfUse.WORKPLACE)))
        code, said = await refused.status()
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert "the device door declares workplace" in said
        assert "ask the server's operator" in said
        status = await rpc_status_of(refused)
        assert dict(status.metadata) == {"rule": EXCEPTION, "context": "workplace"}
        assert status.reason == "policy_refused"
        assert running.sample("policy_refusals_total", rule=EXCEPTION, context="workplace") == 1
        assert running.sample("payload_bytes_total") == 0

        admitted = Device(running.stub)
        await admitted.open(shop)
        await admitted.send(1, payload(bundle))
        assert len((await admitted.close()).results) == 1
        assert running.sample("admitted_streams_total", context="retail") == 1


async def rpc_status_of(device: Device) -> ErrorInfo:
    status = await rpc_status.aio.from_call(device.call)
    assert status is not None
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    return info


@pytest.mark.parametrize("allowed", [False, True])
async def test_calls_that_declare_nothing_are_refused_unless_the_file_allows_them(
    bundles: Path, bundle: Bundle, tmp_path: Path, allowed: bool
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(STRICT | {"undeclared_calls": allowed}), encoding="utf-8")
    request = pb.RecognizeRequest(payloads=[payload(bundle)])
    async with running_recognizer(bundles, policy=path) as running:
        if allowed:
            assert len((await running.stub.Recognize(request)).results) == 1
            return
        with pytest.raises(grpc.aio.AioRpcError, match="undeclared_calls") as caught:
            await running.stub.Recognize(request)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert running.sample("policy_refusals_total", rule=CALLS, context="undeclared") == 1


def test_the_policy_that_is_shipped_is_strict() -> None:
    policy = Policy.load(ROOT / "deploy" / "policy.yaml")
    assert policy.contexts == ["demonstration"]
    assert policy.require_purpose
    assert policy.require_notice
    assert policy.longest_retention_s == 0
    assert policy.exceptions == []
    assert (policy.undeclared_calls, policy.reconstruction) == (False, False)


def test_the_words_are_those_of_the_contract() -> None:
    for kind, proto, first in (
        (ContextOfUse, pb.ContextOfUse, ContextOfUse.UNDECLARED),
        (LegalException, pb.LegalException, LegalException.NONE),
    ):
        words = {number: name.partition("_OF_USE_")[2] or name for name, number in proto.items()}
        ours = {member.value: member.name for member in kind if member is not first}
        assert {n: w.removeprefix("LEGAL_EXCEPTION_") for n, w in words.items() if n} == ours
