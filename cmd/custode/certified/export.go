package certified

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"time"

	"custode/internal/admin"
	"custode/internal/certlog"
	"custode/internal/certlog/export"
	"custode/internal/config"
	"custode/internal/fault"
)

type logExportCmd struct {
	which
	Out       string    `arg:"" type:"path" help:"Folder for the copy; with --plain or --escrow-key the file to write, which must not exist."`
	Plain     bool      `xor:"way" help:"Write the records in clear, JSON lines; the daemon asks the token, and it is kept in the security log."`
	EscrowKey string    `xor:"way" type:"existingfile" placeholder:"FILE" help:"Write the records in clear with the private key of the escrow certificate (PEM, readable by its owner alone): no daemon, no token. Records not sealed yet are marked."`
	Folder    string    `type:"existingdir" placeholder:"FOLDER" help:"With --escrow-key: folder of the log or of a copy; default: the machine file's."`
	Seal      []string  `type:"existingfile" placeholder:"FILE" help:"With --escrow-key: certificate whose seals are trusted (PEM); may be given again."`
	From      time.Time `format:"2006-01-02" help:"With --plain or --escrow-key: segments open on this day (UTC) or later." placeholder:"DATE"`
	To        time.Time `format:"2006-01-02" help:"With --plain or --escrow-key: segments open before this day (UTC)." placeholder:"DATE"`
}

// Run copies files, or opens records with the escrow key, or asks the daemon for them.
func (a *logExportCmd) Run(c Host) error {
	if a.Plain {
		return await(c, "log/export", registerArgument{Actor: admin.Actor(), Log: a.Log, From: a.From, To: a.To, Out: a.Out})
	}
	if a.Folder == "" {
		machine, err := c.MachineFile()
		if err != nil {
			return err
		}
		a.Folder = filepath.Join(machine.CertifiedLog.Directory, a.Log)
	}
	if a.EscrowKey != "" {
		return a.escrowed()
	}
	n, err := export.Sealed(a.Folder, a.Out)
	if err != nil {
		return err
	}
	fmt.Printf("ok: %d files in %s\n", n, a.Out)
	return nil
}

// escrowed opens records with the escrow key, when the token is gone.
func (a *logExportCmd) escrowed() error {
	if len(a.Seal) == 0 {
		return fault.Newf(fault.Invalid, "export with the escrow key", "--seal says whose seals are trusted")
	}
	key, err := escrowPrivate(a.EscrowKey)
	if err != nil {
		return err
	}
	judge, err := judgeOf(a.Seal, nil)
	if err != nil {
		return err
	}
	reader, err := certlog.NewReader(certlog.Dir(a.Folder), judge)
	if err != nil {
		return err
	}
	f, err := newFile(a.Out)
	if err != nil {
		return err
	}
	n, err := export.Plain(context.Background(), f, reader, certlog.Escrow(key), export.Selection{From: a.From, To: a.To, Unsealed: true})
	if err := written(f, err); err != nil {
		return err
	}
	fmt.Printf("ok: %d records in %s\n", n, a.Out)
	return nil
}

// escrowPrivate reads an RSA private key, PKCS#8 or PKCS#1, from a file that only
// its owner may read. No text of an error holds a part of it.
func escrowPrivate(path string) (*rsa.PrivateKey, error) {
	op := "read escrow key " + path
	text, err := config.ReadPrivate(path, 64<<10)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fault.Newf(fault.Invalid, op, "no PEM block in it")
	}
	defer clear(block.Bytes)
	if k, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return k, nil
	}
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fault.Newf(fault.Invalid, op, "a %s is no private key in clear (openssl pkcs8 opens an encrypted one)", block.Type)
	}
	k, ok := any.(*rsa.PrivateKey)
	if !ok {
		return nil, fault.Newf(fault.Invalid, op, "no RSA key")
	}
	return k, nil
}
