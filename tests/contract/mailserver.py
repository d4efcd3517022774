"""A small SMTP server on a real socket, for whoever needs one: tests and scripts of theirs."""

import contextlib
import fcntl
import socket
import socketserver
import struct
import threading
from email import message_from_bytes, policy


class Conversation(socketserver.StreamRequestHandler):
    def handle(self):
        self.say("220 ready")
        for line in self.rfile:
            verb = line[:4].upper().strip()
            if verb == b"DATA":
                self.say("354 go on")
                self.server.messages.append(self.message())
                self.server.arrived.release()
            elif verb == b"QUIT":
                return self.say("221 bye")
            self.say("250 fine")

    def message(self):
        lines = iter(self.rfile.readline, b".\r\n")
        content = b"".join(line.removeprefix(b".") for line in lines)
        return message_from_bytes(content, policy=policy.default)

    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")


class MailServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@contextlib.contextmanager
def serving(port=0):
    """Serve on `port` of 127.0.0.1; `.messages` came, `.arrived` counts them, `.port` is where."""
    with MailServer(("127.0.0.1", port), Conversation) as server:
        server.messages, server.arrived = [], threading.Semaphore(0)
        server.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def loopback_up():
    """Bring up 127.0.0.1 in a network namespace that is new and bare."""
    set_flags, up = 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sH14x", b"lo", up))
