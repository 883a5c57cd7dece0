#!/bin/sh
# Makes what deploy/compose.yaml keeps secret, in a directory: an authority, the gateway's certificate, a client
# certificate for each role (developer.p12 and support.p12 for browsers, .pem for curl), and the tokens of the admin
# address, whose hashes alone the gateway is told (tokens.toml). What is there already stays. Needs openssl.
#
#   deploy/make-secrets.sh deploy/secrets [UID]      the gateway's user may read its keys
set -eu
umask 027
directory=$1 user=${2:-}
mkdir -p "$directory"
cd "$directory"

if [ ! -e ca.pem ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1825 -subj "/CN=tracegate stage authority" \
        -addext "keyUsage=critical,keyCertSign,cRLSign" -keyout ca-key.pem -out ca.pem 2>/dev/null
fi

# certificate NAME USAGE SUBJECT_ALT_NAME
certificate() {
    [ ! -e "$1.pem" ] || return 0
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$1-key.pem" \
        -out "$1.csr" 2>/dev/null
    printf 'basicConstraints=critical,CA:FALSE\nextendedKeyUsage=%s\nsubjectAltName=%s\n' "$2" "$3" >"$1.ext"
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca-key.pem -set_serial "0x$(openssl rand -hex 16)" -days 825 \
        -extfile "$1.ext" -out "$1.pem" 2>/dev/null
    rm "$1.csr" "$1.ext"
}

certificate gateway serverAuth "DNS:localhost,DNS:gateway,IP:127.0.0.1"
for role in developer support; do
    certificate "$role" clientAuth "URI:spiffe://tracegate.example/$role"
    [ -e "$role.p12" ] || openssl pkcs12 -export -in "$role.pem" -inkey "$role-key.pem" -certfile ca.pem \
        -name "tracegate $role" -passout pass:tracegate -out "$role.p12"
done

# as `tracegate token new` makes them: the token for its bearer, its SHA-256 for the file
if [ ! -e tokens.toml ]; then
    for name in prometheus:metrics support:support developer:developer operator:operator; do
        token=tg_$(openssl rand -hex 32)
        printf %s "$token" >"${name%:*}-token"
        hash=$(printf %s "$token" | openssl dgst -sha256 -r | cut -d' ' -f1)
        printf '[admin.tokens.%s]\nrole = "%s"\nsha256 = "%s"\n\n' "${name%:*}" "${name#*:}" "$hash"
    done >tokens.toml.new
    mv tokens.toml.new tokens.toml
fi

# whose directory it is may read everything; the gateway its own; Prometheus, a user of its own, its token
chown "$(stat -c %u:%g .)" ./*
chmod 755 .
chmod 640 ./*.p12
chmod 644 ca.pem gateway.pem prometheus-token
chmod 640 gateway-key.pem tokens.toml
if [ -n "$user" ]; then
    chown "$user" gateway-key.pem tokens.toml
    [ ! -d /audit ] || chown "$user" /audit
fi
