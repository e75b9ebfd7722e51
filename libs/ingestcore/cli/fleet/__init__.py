"""Commands that run services: all of them on this machine or one in this process, who is there, stop and start."""
