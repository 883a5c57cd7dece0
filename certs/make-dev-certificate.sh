#!/bin/sh
# Makes the development certificate beside this script: gateway.pem and gateway-key.pem. Needs openssl.
#
# For trying TLS on one machine only: the key is public, as it stands in the repository. See README.md.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat >"$work/openssl.cnf" <<'CONFIG'
[req]
prompt = no
distinguished_name = name

[name]
CN = tracegate development certificate, not for production

[ca]
default_ca = self

[self]
database = $ENV::WORK/index.txt
new_certs_dir = $ENV::WORK
rand_serial = yes
default_md = sha256
policy = policy
x509_extensions = extensions

[policy]
commonName = supplied

[extensions]
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
CONFIG
: >"$work/index.txt"
export WORK="$work" OPENSSL_CONF="$work/openssl.cnf"

openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
    -keyout gateway-key.pem -out "$work/request.pem"
# Fixed dates: a clock that is off, or a certificate made a minute ago, does no harm.
openssl ca -batch -notext -selfsign -startdate 20250101000000Z -enddate 20450101000000Z \
    -keyfile gateway-key.pem -in "$work/request.pem" -out gateway.pem
