"""A round's messages to many sites as one: what a node of a simulation is sent, and what it sends back.

A node of Flower's simulation, or of a rehearsal on a SuperLink, stands for several sites. It is sent their messages in
one bundle, each with the site's memory, and sends the replies back with the memories as they are then. So nodes keep
nothing, and a run may go on with other ones. It is a way to share out work among processes that trust each other: a
real site is sent its own messages, and its memory stays with it.

A bundle is a tree of values and tensors (see ``fedsim.flower.packed``): nothing in it is code.
"""

from collections.abc import Sequence
from typing import Any

from flwr.app import Context, Error, Message

from fedsim.flower.grid import sent
from fedsim.flower.packed import pack, unpack
from fedsim.flower.trees import records_of, tree_of

_FORMAT = 1


def pack_messages(messages: Sequence[Message], contexts: Sequence[Context]) -> bytes:
    """Return the messages of some sites with their memories; a model that goes to several sites is in it once."""
    each = []
    for message, context in zip(messages, contexts, strict=True):
        each.append(
            {
                "node": message.metadata.dst_node_id,
                "type": message.metadata.message_type,
                "content": tree_of(message.content),
                "node_config": dict(context.node_config),
                "memory": tree_of(context.state),
            }
        )
    # All sites are told the same.
    return pack({"format": _FORMAT, "run_config": dict(contexts[0].run_config), "each": each})


def unpack_messages(bundle: bytes) -> tuple[list[Message], list[Context]]:
    """Return what ``pack_messages`` was given.

    Raises:
        ValueError: It is something else, or of another version.
    """
    tree = _of_this_version(unpack(bundle))
    messages = []
    contexts = []
    for number, one in enumerate(tree["each"], start=1):
        content = records_of(one["content"])
        messages.append(sent(Message(content, one["node"], one["type"]), number))
        context = Context(
            run_id=messages[-1].metadata.run_id,
            node_id=one["node"],
            node_config=one["node_config"],
            state=records_of(one["memory"]),
            run_config=dict(tree["run_config"]),
        )
        contexts.append(context)
    return messages, contexts


def pack_replies(replies: Sequence[object], contexts: Sequence[Context]) -> bytes:
    """Return the replies of some sites with their memories; what is no reply has none."""
    each = []
    for reply, context in zip(replies, contexts, strict=True):
        one: dict[str, Any] = {"memory": tree_of(context.state), "content": None, "error": None}
        if isinstance(reply, Message):
            if reply.has_error():
                one["error"] = [reply.error.code, reply.error.reason]
            else:
                one["content"] = tree_of(reply.content)
        each.append(one)
    return pack({"format": _FORMAT, "each": each})


def unpack_replies(bundle: bytes, messages: Sequence[Message], contexts: Sequence[Context]) -> list[Message | None]:
    """Return the reply to each message, None where a site gave none; put the memories back into the contexts.

    Raises:
        ValueError: These are not the replies to so many messages.
    """
    each = _of_this_version(unpack(bundle))["each"]
    if len(each) != len(messages):
        raise ValueError(f"expected {len(messages)} replies, got {len(each)}")
    replies: list[Message | None] = []
    for one, message, context in zip(each, messages, contexts, strict=True):
        context.state = records_of(one["memory"])
        if one["error"] is not None:
            code, reason = one["error"]
            replies.append(Message(Error(code=code, reason=reason), reply_to=message))
        elif one["content"] is not None:
            replies.append(Message(records_of(one["content"]), reply_to=message))
        else:
            replies.append(None)
    return replies


def _of_this_version(tree: Any) -> dict[str, Any]:  # noqa: ANN401  any tree
    if not isinstance(tree, dict) or tree.get("format") != _FORMAT:
        raise ValueError(f"expected a bundle of format {_FORMAT}: server and nodes need the same version of fedsim")
    return tree
