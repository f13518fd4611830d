"""A client of RabbitMQ with `pika`, over AMQP 0.9.1, and the AMQP binding of the `cloudevents` package.

The binding knows application properties; in AMQP 0.9.1 they are the header table of a message.
"""

import time
import uuid

import pika
from cloudevents.core.bindings import amqp

import events

STREAM = {"x-queue-type": "stream"}


def channel_of(url):
    channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
    channel.confirm_delivery()
    # Nobody reads a stream without a bound.
    channel.basic_qos(prefetch_count=100)
    return channel


def create(url, _, stream, _partitions):
    channel_of(url).queue_declare(stream, durable=True, arguments=STREAM)


def records(channel, streams):
    """The records of streams from their beginnings, as stream, message properties and body."""
    found = []

    def take(stream):
        def took(channel, method, properties, body):
            found.append((stream, properties, body))
            channel.basic_ack(method.delivery_tag)

        return took

    for stream in streams:
        channel.basic_consume(stream, take(stream), arguments={"x-stream-offset": "first"})
    until = time.monotonic() + events.PATIENCE
    while True:
        while found:
            yield found.pop(0)
        assert time.monotonic() < until, f"too few records of {streams}"
        channel.connection.process_data_events(time_limit=1)


def position(properties):
    return properties.headers["x-stream-offset"]


def write(url, messages, topic):
    """Writes each message to its partition of a topic, or to the stream of that name; tells where each stands."""
    channel = channel_of(url)
    ids, streams = [], set()
    for message in messages:
        if message["mode"] == "raw":
            headers, body = dict(message.get("headers") or {}), events.raw_body(message)
            content_type = headers.pop("Content-Type", None)
        else:
            event = events.event_of(message["event"])
            record = {"binary": amqp.to_binary, "structured": amqp.to_structured}[message["mode"]](event, events.FORMAT)
            headers, body = record.application_properties, record.application_data
            content_type = record.properties.get("content-type")
        partition = message.get("partition")
        stream = topic if partition is None else f"{topic}-{partition}"
        ids.append(str(uuid.uuid4()))
        streams.add(stream)
        properties = pika.BasicProperties(content_type=content_type, headers=headers, message_id=ids[-1])
        channel.basic_publish("", stream, body, properties, mandatory=True)
    # A confirmation tells no position.
    places = {}
    for stream, properties, _ in records(channel, sorted(streams)):
        number = 0 if stream == topic else int(stream.rsplit("-", 1)[1])
        places[properties.message_id] = {"partition": number, "position": position(properties)}
        if all(id in places for id in ids):
            break
    channel.connection.close()
    return [places[id] for id in ids]


def read(url, _, topic, count):
    """Reads the first records of a topic of the gateway, of all its partitions."""
    channel = channel_of(url)
    partitions = []
    while True:
        stream = f"{topic}-{len(partitions)}"
        probe = channel.connection.channel()
        try:
            probe.queue_declare(stream, passive=True)
        except pika.exceptions.ChannelClosedByBroker:
            break
        partitions.append(stream)
    found = []
    for stream, properties, body in records(channel, partitions):
        # The broker's own.
        headers = {name: value for name, value in properties.headers.items() if name != "x-stream-offset"}
        message = amqp.AMQPMessage({"content-type": properties.content_type}, headers, body)
        found.append({
            "event": events.document_of(amqp.from_amqp(message, events.FORMAT)),
            "mode": "structured" if events.is_structured(properties.content_type) else "binary",
            "headers": sorted(headers),
            "partition": int(stream.rsplit("-", 1)[1]),
            "position": position(properties),
            "stream": topic,
        })
        if len(found) >= int(count):
            break
    channel.connection.close()
    return found


if __name__ == "__main__":
    events.main({"create": create, "write": write, "read": read})
