"""What the clients of both brokers share: events by the `cloudevents` package, and talk with the test.

A script is called as `python SCRIPT URL VERB ARGUMENT...`, with a document in JSON on stdin, and answers with one on stdout.
Events stand in these documents in the JSON format of CloudEvents, read and written by the package.
"""

import base64
import json
import sys

from cloudevents.core.formats.json import JSONFormat

# A wait that takes longer than this many seconds is a hang.
PATIENCE = 60
FORMAT = JSONFormat()


def event_of(document):
    """The package's event of a document."""
    return FORMAT.read(None, json.dumps(document))


def document_of(event):
    """The document of the package's event."""
    return json.loads(FORMAT.write(event))


def raw_body(message):
    """The bytes of a message that is to be written as it is."""
    return base64.b64decode(message["body_base64"])


def is_structured(content_type):
    return (content_type or "").lower().startswith("application/cloudevents+json")


def main(verbs):
    """Calls the verb of the command line."""
    url, verb, *arguments = sys.argv[1:]
    answer = verbs[verb](url, json.load(sys.stdin), *arguments)
    json.dump(answer, sys.stdout)
