"""A client of NATS JetStream with `nats-py`.

The `cloudevents` package has no binding for NATS: headers are mapped here by the NATS protocol binding of CloudEvents.
"""

import asyncio
import string
from urllib.parse import quote, unquote

import nats
from cloudevents.core.v1.event import CloudEvent
from dateutil.parser import isoparse

import events

PREFIX = "ce-"
CONTENT_TYPE = "Content-Type"
# What a header may carry as it is: printable ASCII but the space, the double quote and the percent sign.
PLAIN = "".join(sorted(set(string.digits + string.ascii_letters + string.punctuation) - set('"%')))


def to_binary(event):
    headers = {}
    for name, value in event.get_attributes().items():
        if name == "time":
            value = events.document_of(event)["time"]
        headers[PREFIX + name] = quote(str(value), safe=PLAIN)
    return headers, events.FORMAT.write_data(event.get_data(), event.get_datacontenttype())


def to_structured(event):
    return {CONTENT_TYPE: events.FORMAT.get_content_type()}, events.FORMAT.write(event)


def from_message(headers, body):
    """The mode and the event of a message."""
    content_type = next((value for name, value in headers.items() if name.lower() == "content-type"), None)
    if events.is_structured(content_type):
        return "structured", events.FORMAT.read(None, body)
    attributes = {}
    for name, value in headers.items():
        if name.lower().startswith(PREFIX):
            attributes[name[len(PREFIX):].lower()] = unquote(value, errors="strict")
    if "time" in attributes:
        attributes["time"] = isoparse(attributes["time"])
    data = events.FORMAT.read_data(body, attributes.get("datacontenttype"))
    return "binary", CloudEvent(attributes, data)


async def create(js, _, stream, *subjects):
    await js.add_stream(name=stream, subjects=list(subjects))


async def write(js, messages, topic):
    """Writes each message to its subject, or to its partition of a topic; tells the sequence that each got."""
    written = []
    for message in messages:
        if message["mode"] == "raw":
            headers, body = message.get("headers"), events.raw_body(message)
        else:
            event = events.event_of(message["event"])
            headers, body = {"binary": to_binary, "structured": to_structured}[message["mode"]](event)
        partition = message.get("partition")
        subject = topic if partition is None else f"{topic}.{partition}"
        acknowledged = await js.publish(subject, body, headers=headers, timeout=events.PATIENCE)
        # Positions of the gateway count from 0, sequences of NATS from 1.
        written.append({"partition": partition or 0, "position": acknowledged.seq - 1})
    return written


async def read(js, _, topic, count):
    """Reads the first messages of a topic of the gateway, whose stream the server finds by the subjects."""
    subscription = await js.subscribe(f"{topic}.*", ordered_consumer=True)
    found = []
    while len(found) < int(count):
        message = await subscription.next_msg(timeout=events.PATIENCE)
        mode, event = from_message(message.headers or {}, message.data)
        found.append({
            "event": events.document_of(event),
            "mode": mode,
            "headers": sorted(message.headers or {}),
            "partition": int(message.subject.rsplit(".", 1)[1]),
            "position": message.metadata.sequence.stream - 1,
            "stream": message.metadata.stream,
        })
    return found


def verb(work):
    async def connected(url, document, *arguments):
        connection = await nats.connect(url, allow_reconnect=False)
        try:
            return await work(connection.jetstream(), document, *arguments)
        finally:
            await connection.close()

    def run(url, document, *arguments):
        return asyncio.run(connected(url, document, *arguments))

    return run


if __name__ == "__main__":
    events.main({"create": verb(create), "write": verb(write), "read": verb(read)})
