package postgres

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/postgres/pgtest"
	"rapidbyte.io/node/messages"
)

// authority signs the certificates of a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	PEM  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	a := &authority{t: t, key: key}
	a.cert = a.template("authority")
	a.cert.IsCA, a.cert.BasicConstraintsValid, a.cert.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, key.Public(), key)
	require.NoError(t, err)
	a.PEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return a
}

func (a *authority) template(name string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	require.NoError(a.t, err)
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
}

// sign returns a certificate for a name and its key.
func (a *authority) sign(name string, use x509.ExtKeyUsage) (cert, key string) {
	a.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	c := a.template(name)
	c.DNSNames, c.ExtKeyUsage, c.KeyUsage = []string{name}, []x509.ExtKeyUsage{use}, x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, private.Public(), a.key)
	require.NoError(a.t, err)
	bytes, err := x509.MarshalECPrivateKey(private)
	require.NoError(a.t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: bytes}))
}

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.pem")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// startTLS starts a server that speaks TLS as localhost, with roles that may come
// only with it, only without it, both ways, and only with a certificate.
func startTLS(t *testing.T, ca *authority) *pgtest.Server {
	t.Helper()
	s := pgtest.Start(t, "fsync=off")
	cert, key := ca.sign("localhost", x509.ExtKeyUsageServerAuth)
	s.File(t, "server.crt", cert)
	s.File(t, "server.key", key)
	s.File(t, "root.crt", ca.PEM)
	s.Exec(t, "postgres", "CREATE ROLE tls LOGIN; CREATE ROLE clear LOGIN; CREATE ROLE either LOGIN; CREATE ROLE holder LOGIN")
	s.Exec(t, "postgres", "ALTER SYSTEM SET ssl = on")
	s.Exec(t, "postgres", "ALTER SYSTEM SET ssl_ca_file = 'root.crt'")
	s.File(t, "pg_hba.conf", "host all postgres,either 127.0.0.1/32 trust\nhostssl all tls 127.0.0.1/32 trust\nhostnossl all clear 127.0.0.1/32 trust\nhostssl all holder 127.0.0.1/32 cert\n")
	s.Restart(t)
	return s
}

func TestPGEveryModeOfTLS(t *testing.T) {
	homeless(t)
	ca, other := newAuthority(t), newAuthority(t)
	s := startTLS(t, ca)
	right, wrong := file(t, ca.PEM), file(t, other.PEM)
	holder, holderKey := ca.sign("holder", x509.ExtKeyUsageClientAuth)
	cases := []struct {
		name, mode, user, host, root string
		encrypted                    string // t or f; else the login fails
		next                         string
	}{
		{"disable", "disable", "either", "", "", "f", ""},
		{"disable, TLS wanted", "disable", "tls", "", "", "", "sslmode: require"},
		{"allow", "allow", "either", "", "", "f", ""},
		{"allow, TLS wanted", "allow", "tls", "", "", "t", ""},
		{"prefer", "prefer", "either", "", "", "t", ""},
		{"by default", "", "either", "", "", "t", ""},
		{"prefer, TLS refused", "prefer", "clear", "", "", "f", ""},
		{"require", "require", "either", "", "", "t", ""},
		{"require, TLS refused", "require", "clear", "", "", "", "pg_hba.conf"},
		{"require, with certificates", "require", "either", "127.0.0.1", right, "t", ""},
		{"require, wrong certificates", "require", "either", "", wrong, "", "sslrootcert"},
		{"verify-ca", "verify-ca", "either", "127.0.0.1", right, "t", ""},
		{"verify-ca, wrong certificates", "verify-ca", "either", "", wrong, "", "sslrootcert"},
		{"verify-ca, without certificates", "verify-ca", "either", "", "", "", "sslrootcert"},
		{"verify-full", "verify-full", "either", "localhost", right, "t", ""},
		{"verify-full, wrong name", "verify-full", "either", "127.0.0.1", right, "", "another name"},
		{"verify-full, wrong certificates", "verify-full", "either", "localhost", wrong, "", "sslrootcert"},
		{"verify-full, those of this machine", "verify-full", "either", "localhost", "system", "", "sslrootcert"},
		{"client without certificate", "require", "holder", "", "", "", ""},
		{"client with certificate", "require", "holder", "", "", "t", ""},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := Connection{Host: tc.host, Port: s.Port(), User: tc.user, Database: "postgres", SSLMode: tc.mode, SSLRootCert: tc.root}
			if c.Host == "" {
				c.Host = "127.0.0.1"
			}
			if tc.name == "client with certificate" {
				c.SSLCert, c.SSLKey = file(t, holder), file(t, holderKey)
			}
			if tc.encrypted == "" {
				e := connecting(t, c, connectors.StageSource)
				require.Equal(t, connectors.KindConfig, e.Kind, "%v", e)
				require.Contains(t, []messages.Code{messages.CodeSourceDenied, messages.CodeDocValue}, e.Code)
				require.Contains(t, e.Next, tc.next, "%v", e)
				return
			}
			conn, err := dialerOf(t, c, connectors.StageSource).data(t.Context())
			require.NoError(t, err)
			results, err := conn.Exec(t.Context(), "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
			require.NoError(t, err)
			require.Equal(t, tc.encrypted, string(results[0].Rows[0][0]))
			require.NoError(t, conn.Close())
		})
	}
}

// TestPGCancelOverTLS ends a statement by a second connection, which is encrypted too.
func TestPGCancelOverTLS(t *testing.T) {
	ca := newAuthority(t)
	s := startTLS(t, ca)
	c := Connection{Host: "localhost", Port: s.Port(), User: "tls", Database: "postgres", SSLMode: "verify-full", SSLRootCert: file(t, ca.PEM)}
	conn, err := dialerOf(t, c, connectors.StageDestination).data(t.Context())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := conn.Exec(ctx, "SELECT pg_sleep(3600)")
		failed <- err
	}()
	sleeping := "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
	require.Eventually(t, func() bool { return len(s.Query(t, "postgres", sleeping)) == 1 }, time.Minute, 10*time.Millisecond)
	cancel()
	require.ErrorIs(t, <-failed, context.Canceled)
	require.Eventually(t, func() bool { return len(s.Query(t, "postgres", sleeping)) == 0 }, time.Minute, 10*time.Millisecond)
	require.NoError(t, conn.Close())
}
