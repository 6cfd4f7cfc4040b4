FROM scratch
COPY ignored.txt /a
ADD dir/x.log /b
COPY f /c
COPY dir /d
