'use strict';

// A service provider on passport-spid, for the end-to-end tests only.
//
//   node passport.js --idp-metadata FILE [--port N] [--base URL] [--binding HTTP-POST|HTTP-Redirect]
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

const fs = require('node:fs');
const { parseArgs } = require('node:util');
const passport = require('passport');
const { SpidStrategy } = require('passport-spid');
const { makeKeyPair, readForm, reply, replyJSON, listen, run } = require('./kit.js');

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
  const { server, listening } = await listen(o.port);
  const base = o.base ?? listening;
  const strategy = buildStrategy(o, base);
  passport.use('spid', strategy);
  const metadata = await strategy.generateSpidServiceProviderMetadata();
  run(server, base, listening, (req, res) => serve(metadata, req, res));
}

main().catch((err) => {
  process.stderr.write('passport.js: ' + err.message + '\n');
  process.exit(1);
});
