"""The brokers. Each is a room of its own and knows no other one."""
