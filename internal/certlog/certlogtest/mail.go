package certlogtest

import (
	"crypto/x509"
	"testing"
	"time"

	"custode/internal/certlog/witness/mail"
	"custode/simulators/mailsim"
)

// Mail sends a seal to the simulated server as the product does.
func Mail(t testing.TB, server *mailsim.Server, name string, octets []byte) {
	t.Helper()
	s := &mail.Sender{Server: server.Addr, TLS: mail.StartTLS, Roots: x509.NewCertPool(), From: "custode@idp.example.it", To: []string{"auditor@example.it"}, Timeout: 5 * time.Second, Now: time.Now}
	s.Roots.AddCert(server.Root)
	if err := s.Send(t.Context(), "transactions", name, octets); err != nil {
		t.Fatal(err)
	}
}
