'use strict';

// What the service providers of the end-to-end tests share: a key pair, a form
// reader, answers, and the start of the server.

const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');

const MAX_BODY = 1 << 20;

// The RSA key lives in a fresh directory that is removed as soon as it has been read.
function makeKeyPair() {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'custode-sp-'));
  try {
    const key = path.join(dir, 'key.pem');
    const cert = path.join(dir, 'cert.pem');
    execFileSync('openssl', [
      'req', '-x509', '-newkey', 'rsa:2048', '-sha256', '-nodes', '-days', '30',
      '-subj', '/C=IT/O=Comune di Prova Bassa/CN=Comune di Prova Bassa/L=Roma',
      '-keyout', key, '-out', cert,
    ], { stdio: ['ignore', 'ignore', 'pipe'] });
    return { key: fs.readFileSync(key, 'utf8'), cert: fs.readFileSync(cert, 'utf8') };
  } finally {
    fs.rmSync(dir, { recursive: true, force: true });
  }
}

function readForm(req) {
  return new Promise((resolve, reject) => {
    const parts = [];
    let size = 0;
    req.on('data', (part) => {
      size += part.length;
      if (size > MAX_BODY) {
        reject(new Error('form too large'));
        req.destroy();
        return;
      }
      parts.push(part);
    });
    req.on('error', reject);
    req.on('end', () => {
      resolve(Object.fromEntries(new URLSearchParams(Buffer.concat(parts).toString('utf8'))));
    });
  });
}

function reply(res, status, type, body) {
  res.writeHead(status, { 'Content-Type': type, 'Cache-Control': 'no-store' });
  res.end(body);
}

function replyJSON(res, status, value) {
  reply(res, status, 'application/json', JSON.stringify(value) + '\n');
}

async function listen(port) {
  const server = http.createServer();
  await new Promise((resolve, reject) => {
    server.on('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  return { server, listening: 'http://127.0.0.1:' + server.address().port };
}

// Serves until a signal, and tells the test where.
function run(server, base, listening, serve) {
  server.on('request', (req, res) => {
    serve(req, res).catch((err) => {
      if (!res.headersSent) replyJSON(res, 500, { ok: false, error: String(err.message) });
    });
  });
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));
  process.stdout.write(JSON.stringify({ listening, base }) + '\n');
}

module.exports = { makeKeyPair, readForm, reply, replyJSON, listen, run };
