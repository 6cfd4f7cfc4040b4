FROM scratch
RUN --mount=type=secret,id=token --mount=type=secret,id=must,required=true true
RUN --mount=type=ssh true
RUN --mount=type=ssh,id=other,required --mount=type=cache,target=/c,id=shared true
