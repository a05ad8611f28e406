# Serves moto's DynamoDB on a free port of the loopback interface until the standard input ends.
# Prints "ok" and the port.
import logging
import os
import sys
import threading

try:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server
except ImportError as error:
    print("failed", error, flush=True)
    sys.exit(1)

logging.getLogger("werkzeug").setLevel(logging.ERROR)
application = DomainDispatcherApplication(create_backend_app)
one_at_a_time = threading.Lock()


def serve(environ, start_response):
    # Moto loses writes when it executes two requests at once. A single thread would do, but a
    # client that keeps its connection open would then keep all others out.
    with one_at_a_time:
        return list(application(environ, start_response))


def end_with_parent():
    sys.stdin.buffer.read()
    os._exit(0)


threading.Thread(target=end_with_parent, daemon=True).start()
server = make_server("127.0.0.1", 0, serve, threaded=True)
print("ok", server.port, flush=True)
server.serve_forever()
