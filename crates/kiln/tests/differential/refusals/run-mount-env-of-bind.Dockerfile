FROM scratch
RUN --mount=type=bind,target=/c,env=A true
