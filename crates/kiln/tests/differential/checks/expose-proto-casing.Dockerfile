FROM scratch
EXPOSE 80/TCP 81/Udp 82/udp
