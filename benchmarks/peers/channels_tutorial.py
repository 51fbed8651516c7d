"""The tutorial-style Channels consumer on uvicorn. Room: benchmarks."""

from benchmarks.peers.channels_app import application
from benchmarks.peers.serve import port_argument, serve

if __name__ == "__main__":
    serve(application, port_argument())
