"""What the API says, with nothing running: requests as values, answers as values, and what they mean.

A call is a `Request[T]`: method, path, body, and a decoder that makes a T of the answer. What came back is a
`Response`: status, headers, body. Between them stands one function::

    >>> from omi_async._api.endpoints import create_memory, interpret
    >>> from omi_async._api.messages import Response
    >>> from omi_async.fact import Fact
    >>> request = create_memory(Fact("User is vegetarian"))
    >>> request.method, request.path
    ('POST', '/v1/dev/user/memories')
    >>> interpret(request, Response(200, {}, b'{"id": "1", "content": "User is vegetarian"}')).id
    '1'
    >>> interpret(request, Response(429, {"Retry-After": "7"}, b"")).id
    Traceback (most recent call last):
    omi_async.errors.RateLimitError: cannot create a memory: 429 Too Many Requests

So everything that is known of the API can be read, and tested, without a network, a clock or a random number:
those are arguments (`received` of a response, `chance` of a wait).

- `endpoints`: one builder for each endpoint, and `interpret`.
- `messages`: the values. `Request.kind` says whose quota a call spends, `idempotent` whether making it twice
  is making it once, `answers` which statuses are no failures for it.
- `codec`: JSON to models. *Strict about types, open about values*: cattrs would turn null into ``'None'`` and
  ``"false"`` into True, so each field has a reader that does not; an unknown category is data, since the
  server owns its vocabulary. An answer to a write is read as a whole or not at all. Of a list, what can be
  read is read: one memory with a null in the wrong place must not hide ten thousand others.
- `json`: orjson or the standard library, with NaN and half surrogate pairs refused by both.
- `failures`: a status that is no success to an error, in words that help and that hold nothing private.
- `headers`: Retry-After in all its forms, X-RateLimit-*, Date.
- `retry`: which failures are worth another attempt, and the loop that all who retry use.
- `paging`: a whole list by offset, while it changes, as far as the server shows it.
"""
