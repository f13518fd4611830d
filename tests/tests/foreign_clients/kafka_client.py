"""A client of Apache Kafka with `confluent-kafka`, and the Kafka binding of the `cloudevents` package."""

import time

from cloudevents.core.bindings import kafka
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import events


def servers(url):
    return {"bootstrap.servers": url.removeprefix("kafka://")}


def create(url, _, topic, partitions):
    client = AdminClient(servers(url))
    for created in client.create_topics([NewTopic(topic, int(partitions), 1)]).values():
        created.result(timeout=events.PATIENCE)


def write(url, messages, topic):
    """Writes each message to its partition of a topic; tells the offset that each got."""
    producer = Producer({**servers(url), "acks": "all"})
    written = [None] * len(messages)

    def acknowledged(index):
        def done(error, message):
            if error is not None:
                raise KafkaException(error)
            written[index] = {"partition": message.partition(), "position": message.offset()}

        return done

    for index, message in enumerate(messages):
        if message["mode"] == "raw":
            headers, key, value = message.get("headers"), message.get("key"), events.raw_body(message)
        else:
            event = events.event_of(message["event"])
            modes = {"binary": kafka.to_binary, "structured": kafka.to_structured}
            record = modes[message["mode"]](event, events.FORMAT)
            headers, key, value = record.headers, record.key, record.value
        partition = message.get("partition", 0)
        producer.produce(topic, value, key, partition, headers=headers, on_delivery=acknowledged(index))
    assert producer.flush(events.PATIENCE) == 0, "not everything was acknowledged"
    return written


def read(url, _, topic, count):
    """Reads the first records of a topic, of all its partitions, outside of any group."""
    consumer = Consumer({**servers(url), "group.id": "foreign", "enable.auto.commit": False})
    partitions = consumer.list_topics(topic, timeout=events.PATIENCE).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
    found = []
    until = time.monotonic() + events.PATIENCE
    while len(found) < int(count):
        assert time.monotonic() < until, f"only {len(found)} records of {topic}"
        record = consumer.poll(1)
        if record is None:
            continue
        if record.error() is not None:
            raise KafkaException(record.error())
        headers = record.headers() or []
        message = kafka.KafkaMessage(headers=dict(headers), key=record.key(), value=record.value())
        content_type = message.headers.get("content-type", b"").decode()
        found.append({
            "event": events.document_of(kafka.from_kafka(message, events.FORMAT)),
            "mode": "structured" if events.is_structured(content_type) else "binary",
            "headers": sorted(name for name, _ in headers),
            "key": None if record.key() is None else record.key().decode(),
            "partition": record.partition(),
            "position": record.offset(),
            "stream": record.topic(),
        })
    consumer.close()
    return found


if __name__ == "__main__":
    events.main({"create": create, "write": write, "read": read})
