package certified

import (
	"strings"
	"time"

	"custode/internal/certlog/witness"
	"custode/internal/certlog/witness/mail"
	"custode/internal/config"
)

// mailTime bounds one letter.
const mailTime = 30 * time.Second

// mailboxes makes the witness that gets letters, none without a server.
func mailboxes(c config.Mail) ([]witness.Mail, error) {
	if c.Server == "" {
		return nil, nil
	}
	s := &mail.Sender{Server: c.Server, TLS: mail.TLS(c.TLS), From: c.From, To: c.To, Username: c.Username, Timeout: mailTime, Now: time.Now}
	roots, err := config.Certificates(c.Certificates)
	if err != nil {
		return nil, err
	}
	if len(roots) > 0 {
		s.Roots = pool(roots)
	}
	if c.PasswordFile != "" {
		if s.Password, err = config.ReadSecret(c.PasswordFile); err != nil {
			return nil, err
		}
	}
	return []witness.Mail{{To: "mailto:" + strings.Join(c.To, ","), Send: s.Send}}, nil
}
