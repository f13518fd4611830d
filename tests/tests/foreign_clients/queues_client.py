"""A program of queues and exchanges with `pika`: plain messages, and events by the AMQP binding of the `cloudevents` package."""

import base64
import time

import pika
from cloudevents.core.bindings import amqp
from cloudevents.core.v1.event import CloudEvent

import events
from rabbitmq_client import channel_of


def declare(url, document):
    """Declares topic exchanges and queues, and binds queues to exchanges by keys."""
    channel = channel_of(url)
    for exchange in document["exchanges"]:
        channel.exchange_declare(exchange, "topic", durable=True)
    for queue in document["queues"]:
        channel.queue_declare(queue["name"], durable=True, arguments=queue.get("arguments"))
        for exchange, key in queue.get("bind", []):
            channel.queue_bind(queue["name"], exchange, key)
    channel.connection.close()


def event_of(message):
    """The package's event of a message; attributes that are bytes have no place in a document of JSON."""
    event = events.event_of(message["event"])
    encoded = {name: base64.b64decode(text) for name, text in message.get("attributes_base64", {}).items()}
    return CloudEvent({**event.get_attributes(), **encoded}, event.get_data())


def send(url, messages, exchange):
    """Sends each message, which some queue must take, with the key that it names; tells the bytes of each."""
    channel = channel_of(url)
    bodies = []
    for message in messages:
        said, headers = dict(message.get("properties", {})), message.get("headers")
        if message["mode"] == "plain":
            body = events.raw_body(message)
        else:
            modes = {"binary": amqp.to_binary, "structured": amqp.to_structured}
            record = modes[message["mode"]](event_of(message), events.FORMAT)
            headers, body = record.application_properties, record.application_data
            if "content-type" in record.properties:
                said["content_type"] = record.properties["content-type"]
        properties = pika.BasicProperties(headers=headers, delivery_mode=2, **said)
        channel.basic_publish(exchange, message["key"], body, properties, mandatory=True)
        bodies.append(base64.b64encode(body).decode())
    channel.connection.close()
    return bodies


def got(channel, queue):
    """The next message of a queue, for which it waits."""
    until = time.monotonic() + events.PATIENCE
    while True:
        method, properties, body = channel.basic_get(queue)
        if method is not None:
            return method, properties, body
        assert time.monotonic() < until, f"{queue} stays empty"
        channel.connection.sleep(0.05)


def take(url, _, queue, count):
    """Takes the first messages of a queue; tells what each says of itself, and the event that the package reads of it."""
    channel = channel_of(url)
    found = []
    for _ in range(int(count)):
        method, properties, body = got(channel, queue)
        channel.basic_ack(method.delivery_tag)
        content_type = properties.content_type
        message = amqp.AMQPMessage({} if content_type is None else {"content-type": content_type}, properties.headers, body)
        found.append({
            "event": events.document_of(amqp.from_amqp(message, events.FORMAT)),
            "mode": "structured" if events.is_structured(content_type) else "binary",
            "exchange": method.exchange,
            "key": method.routing_key,
            "message_id": properties.message_id,
            "type": properties.type,
            "timestamp": properties.timestamp,
            "delivery_mode": properties.delivery_mode,
            "body_base64": base64.b64encode(body).decode(),
        })
    channel.connection.close()
    return found


def nack(url, _, queue, count):
    """Gets the first messages of a queue and refuses them for good."""
    channel = channel_of(url)
    for _ in range(int(count)):
        method, _, _ = got(channel, queue)
        channel.basic_nack(method.delivery_tag, requeue=False)
    channel.connection.close()


if __name__ == "__main__":
    events.main({"declare": declare, "send": send, "take": take, "nack": nack})
