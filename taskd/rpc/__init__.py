"""gRPC: translate, call the service, translate back; and the same from the other side."""
