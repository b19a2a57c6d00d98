"""What travels over gRPC: generated from `proto/taskd/v1` by `make proto`."""
