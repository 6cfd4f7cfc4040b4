FROM scratch
ADD f "/b c"
