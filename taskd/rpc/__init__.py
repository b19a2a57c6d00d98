"""gRPC: translate, call the service, translate back; and the same from the other side."""

import os

# Before grpc is loaded: its core tells standard error of each connection that ends, past every log.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
