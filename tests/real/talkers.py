"""Servers that talk: gRPC with all kinds of streams by grpcio, and WebSockets by websockets. Messages are bytes."""

import concurrent.futures
import threading
import time

import grpc
from websockets.sync.server import serve

SERVICE = "shop.Orders"
STATUSES = {code.value[0]: code for code in grpc.StatusCode}


class Orders:
    """Echoes, one way for each kind of call; what it is told to fail with, it fails with."""

    def __init__(self):
        self.left = threading.Event()
        self.seconds = None
        handlers = {
            "One": grpc.unary_unary_rpc_method_handler(self.one),
            "Down": grpc.unary_stream_rpc_method_handler(self.down),
            "Up": grpc.stream_unary_rpc_method_handler(self.up),
            "Both": grpc.stream_stream_rpc_method_handler(self.both),
            "Wait": grpc.unary_unary_rpc_method_handler(self.wait),
        }
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(32))
        self.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def one(self, message, context):
        context.set_trailing_metadata([("x-length", str(len(message)))])
        if message.startswith(b"fail "):
            context.abort(STATUSES[int(message[5:])], "as asked")
        return message

    def down(self, message, context):
        for number in range(int(message)):
            yield b"%d" % number

    def up(self, messages, context):
        return b"%d" % sum(len(message) for message in messages)

    def both(self, messages, context):
        for message in messages:
            yield message

    def wait(self, message, context):
        self.seconds = context.time_remaining()
        context.add_callback(self.left.set)
        time.sleep(float(message))
        return message

    def stop(self):
        self.server.stop(0)


class Chat:
    """Echoes each message; closes with the code it is told to."""

    def __init__(self):
        self.server = serve(self.talk, "127.0.0.1", 0, max_size=None)
        self.port = self.server.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @staticmethod
    def talk(connection):
        for message in connection:
            if isinstance(message, str) and message.startswith("close "):
                return connection.close(int(message[6:]))
            connection.send(message)

    def stop(self):
        self.server.shutdown()


def routes(orders, chat):
    """What the gateway's configuration says of them."""
    return f"""
[upstreams.orders]
service = "orders"
endpoints = ["http://127.0.0.1:{orders.port}"]
protocol = "h2"

[upstreams.chat]
service = "chat"
endpoints = ["http://127.0.0.1:{chat.port}"]

[routes.orders]
match = {{ path = "/{SERVICE}/{{call}}" }}
upstream = "orders"

[routes.chat]
match = {{ path = "/chat" }}
upstream = "chat"
"""
