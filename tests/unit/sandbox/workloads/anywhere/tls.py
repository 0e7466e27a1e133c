import ssl

context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
client = context.wrap_bio(incoming, outgoing)
try:
    client.do_handshake()
except ssl.SSLWantReadError:
    pass
assert outgoing.pending > 100
