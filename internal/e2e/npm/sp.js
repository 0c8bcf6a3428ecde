'use strict';

// A service provider on passport-spid, for the end-to-end tests only.
//
//   node sp.js --idp-metadata FILE [--port N] [--base URL] [--binding HTTP-POST|HTTP-Redirect]
//              [--level 1|2|3] [--comparison exact|minimum|better|maximum] [--attributes a,b,c]
//
// Each option may instead come from SP_<NAME> in the environment (SP_IDP_METADATA ...).
// Port 0 (the default) lets the kernel choose. When the server is ready it writes
// exactly one line to stdout: {"listening":"http://127.0.0.1:PORT","base":"..."}.
//
//   GET  /metadata  signed SP metadata
//   GET  /login     redirect, or HTML form, that carries an AuthnRequest to the IdP
//   POST /login/cb  200 {"ok":true,"profile":{...},"relayState":...,"responseXml":...}
//                   403 {"ok":false,"error":"...","statusXml":...} when the response is refused
//
// The RSA key lives in a fresh directory that is removed as soon as it has been read.

const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');
const passport = require('passport');
const { SpidStrategy } = require('passport-spid');

const MAX_BODY = 1 << 20;
const COMPARISONS = ['exact', 'minimum', 'better', 'maximum'];

function readOptions() {
  const names = ['idp-metadata', 'port', 'base', 'binding', 'level', 'comparison', 'attributes'];
  const defaults = {
    port: '0',
    binding: 'HTTP-POST',
    level: '2',
    comparison: 'minimum',
    attributes: 'spidCode,name,familyName,fiscalNumber,dateOfBirth,email',
  };
  const { values } = parseArgs({
    options: Object.fromEntries(names.map((n) => [n, { type: 'string' }])),
  });
  const option = (n) =>
    values[n] ?? process.env['SP_' + n.toUpperCase().replace('-', '_')] ?? defaults[n];
  const o = {
    idpMetadata: option('idp-metadata'),
    port: Number(option('port')),
    base: option('base'),
    binding: option('binding'),
    level: Number(option('level')),
    comparison: option('comparison'),
    attributes: option('attributes').split(',').filter(Boolean),
  };
  if (!o.idpMetadata) throw new Error('--idp-metadata is missing');
  if (!Number.isInteger(o.port) || o.port < 0 || o.port > 65535) throw new Error('bad --port');
  if (!['HTTP-POST', 'HTTP-Redirect'].includes(o.binding)) throw new Error('bad --binding');
  if (![1, 2, 3].includes(o.level)) throw new Error('bad --level');
  if (!COMPARISONS.includes(o.comparison)) throw new Error('bad --comparison');
  return o;
}

function makeKeyPair() {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'passport-sp-'));
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

// passport-spid remembers its requests here; a Map alone would leave it to a
// timer that keeps the process alive for hours.
function requestCache() {
  const kept = new Map();
  return {
    get: async (k) => kept.get(k),
    set: async (k, v) => void kept.set(k, v),
    delete: async (k) => void kept.delete(k),
    expire: async (k, ms) => void setTimeout(() => kept.delete(k), ms).unref(),
  };
}

function buildStrategy(o, base) {
  const pair = makeKeyPair();
  const accept = (profile, done) => done(null, profile);
  return new SpidStrategy({
    saml: {
      authnRequestBinding: o.binding,
      attributeConsumingServiceIndex: '0',
      signatureAlgorithm: 'sha256',
      digestAlgorithm: 'sha256',
      callbackUrl: base + '/login/cb',
      logoutCallbackUrl: base + '/logout/cb',
      racComparison: o.comparison,
      privateKey: pair.key,
      audience: base,
    },
    spid: {
      getIDPEntityIdFromRequest: () => undefined, // the only one in the file
      IDPRegistryMetadata: fs.readFileSync(o.idpMetadata, 'utf8'),
      authnContext: o.level,
      serviceProvider: {
        type: 'public',
        entityId: base,
        certificate: pair.cert,
        acs: [{ name: 'prova', attributes: o.attributes }],
        organization: {
          it: { name: 'Comune di Prova Bassa', displayName: 'Comune di Prova Bassa', url: base },
        },
        contactPerson: { IPACode: 'c_h501', email: 'spid@example.com' },
      },
    },
    cache: requestCache(),
  }, accept, accept);
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

// What passport expects from a web framework, and no more.
function adapt(req, res, url) {
  req.query = Object.fromEntries(url.searchParams);
  req.res = res;
  res.send = (html) => reply(res, 200, 'text/html; charset=utf-8', html);
}

function authenticate(req, res) {
  passport.authenticate('spid', { session: false }, (err, profile, info) => {
    if (err || !profile) {
      const cause = err ?? info ?? 'no profile';
      replyJSON(res, 403, {
        ok: false,
        error: String(cause.message ?? cause),
        statusXml: cause.xmlStatus ?? null,
      });
      return;
    }
    replyJSON(res, 200, {
      ok: true,
      profile,
      relayState: req.body?.RelayState ?? null,
      responseXml: profile.getSamlResponseXml?.() ?? null,
    });
  })(req, res, (err) => replyJSON(res, 500, { ok: false, error: String(err?.message ?? err) }));
}

async function serve(metadata, req, res) {
  const url = new URL(req.url, 'http://sp.invalid');
  adapt(req, res, url);
  switch (req.method + ' ' + url.pathname) {
    case 'GET /metadata':
      return reply(res, 200, 'application/samlmetadata+xml', metadata);
    case 'GET /login':
      return authenticate(req, res);
    case 'POST /login/cb':
      req.body = await readForm(req);
      return authenticate(req, res);
    default:
      return replyJSON(res, 404, { ok: false, error: 'not found' });
  }
}

async function main() {
  const o = readOptions();
  const server = http.createServer();
  await new Promise((resolve, reject) => {
    server.on('error', reject);
    server.listen(o.port, '127.0.0.1', resolve);
  });
  const listening = 'http://127.0.0.1:' + server.address().port;
  const base = o.base ?? listening;
  const strategy = buildStrategy(o, base);
  passport.use('spid', strategy);
  const metadata = await strategy.generateSpidServiceProviderMetadata();
  server.on('request', (req, res) => {
    serve(metadata, req, res).catch((err) => {
      if (!res.headersSent) replyJSON(res, 500, { ok: false, error: String(err.message) });
    });
  });
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));
  process.stdout.write(JSON.stringify({ listening, base }) + '\n');
}

main().catch((err) => {
  process.stderr.write('sp.js: ' + err.message + '\n');
  process.exit(1);
});
