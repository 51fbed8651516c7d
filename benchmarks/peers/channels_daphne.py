"""The tutorial-style Channels consumer on Daphne. Room: benchmarks."""

from daphne.server import Server

from benchmarks.peers.channels_app import application
from benchmarks.peers.serve import port_argument

if __name__ == "__main__":
    Server(application, endpoints=[f"tcp:port={port_argument()}:interface=127.0.0.1"]).run()
