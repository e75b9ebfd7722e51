"""`ingest`, the command line: `main` puts the commands together; a folder holds what commands are about. The modules
here are what all of them share: where they write, which servers they talk to, files and names they take, how they fail.
"""
