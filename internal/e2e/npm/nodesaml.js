'use strict';

// A service provider on @node-saml/node-saml, for the end-to-end tests only:
// level 1 logins and single logout in both directions.
//
//   node nodesaml.js --idp-metadata FILE --slo HTTP-POST|HTTP-Redirect [--port N]
//
// Port 0 (the default) lets the kernel choose. When the server is ready it writes
// exactly one line to stdout: {"listening":"http://127.0.0.1:PORT","base":"..."}.
//
//   GET  /metadata  signed SP metadata; its SingleLogoutService is of the --slo binding
//   GET  /login     302 with an AuthnRequest to the identity provider
//   POST /acs       200 {"ok":true,"profile":{...}} when node-saml accepts the Response
//   GET  /logout    302 with a LogoutRequest about the last profile
//   GET|POST /slo   a LogoutResponse: 200 {"ok":true,"loggedOut":true}
//                   a LogoutRequest: 302 with a LogoutResponse, and the profile is forgotten
//   GET  /state     {"loggedIn":...,"requests":number of LogoutRequests accepted}
//
// A message that node-saml refuses is answered 403 {"ok":false,"error":"..."}.

const fs = require('node:fs');
const { parseArgs } = require('node:util');
const { SAML, ValidateInResponseTo } = require('@node-saml/node-saml');
const { signXml } = require('@node-saml/node-saml/lib/xml');
const { makeKeyPair, readForm, reply, replyJSON, listen, run } = require('./kit.js');

const BINDING = 'urn:oasis:names:tc:SAML:2.0:bindings:';
const TRANSIENT = 'urn:oasis:names:tc:SAML:2.0:nameid-format:transient';
const ENTITY = 'urn:oasis:names:tc:SAML:2.0:nameid-format:entity';
const ATTRIBUTES = ['spidCode', 'name', 'familyName', 'fiscalNumber'];

function find(text, pattern, what) {
  const found = pattern.exec(text);
  if (!found) throw new Error('the metadata of the identity provider has no ' + what);
  return found[1];
}

// node-saml reads no metadata; the file is our own fixed form.
function identityProvider(file) {
  const text = fs.readFileSync(file, 'utf8');
  const location = (element) =>
    find(text, new RegExp('<md:' + element + '[^>]*HTTP-Redirect"[^>]* Location="([^"]+)"'), element);
  return {
    entityID: find(text, / entityID="([^"]+)"/, 'entityID'),
    cert: find(text, /<md:KeyDescriptor use="signing">.*?<ds:X509Certificate>([^<]+)</s, 'certificate'),
    sso: location('SingleSignOnService'),
    slo: location('SingleLogoutService'),
  };
}

function metadata(base, slo, pair) {
  const cert = pair.cert.replace(/-----[A-Z ]+-----|\s/g, '');
  const requested = ATTRIBUTES.map((a) => `<md:RequestedAttribute Name="${a}"/>`).join('');
  const xml = `<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" ID="_m" entityID="${base}">` +
    '<md:SPSSODescriptor AuthnRequestsSigned="true" WantAssertionsSigned="true" protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">' +
    '<md:KeyDescriptor use="signing"><ds:KeyInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:X509Data>' +
    `<ds:X509Certificate>${cert}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>` +
    `<md:SingleLogoutService Binding="${BINDING}${slo}" Location="${base}/slo"/>` +
    `<md:NameIDFormat>${TRANSIENT}</md:NameIDFormat>` +
    `<md:AssertionConsumerService index="0" isDefault="true" Binding="${BINDING}HTTP-POST" Location="${base}/acs"/>` +
    `<md:AttributeConsumingService index="0"><md:ServiceName xml:lang="it">prova</md:ServiceName>${requested}</md:AttributeConsumingService>` +
    '</md:SPSSODescriptor>' +
    '<md:Organization><md:OrganizationName xml:lang="it">Comune di Prova Alta</md:OrganizationName>' +
    '<md:OrganizationDisplayName xml:lang="it">Comune di Prova Alta</md:OrganizationDisplayName>' +
    `<md:OrganizationURL xml:lang="it">${base}</md:OrganizationURL></md:Organization></md:EntityDescriptor>`;
  const root = '/*[local-name(.)="EntityDescriptor"]';
  return signXml(xml, root, { reference: root, action: 'prepend' },
    { privateKey: pair.key, signatureAlgorithm: 'sha256', digestAlgorithm: 'sha256' });
}

function consumer(base, idp, pair, slo) {
  return new SAML({
    issuer: base,
    callbackUrl: base + '/acs',
    entryPoint: idp.sso,
    logoutUrl: idp.slo,
    idpIssuer: idp.entityID,
    idpCert: idp.cert,
    privateKey: pair.key,
    publicCert: pair.cert,
    signatureAlgorithm: 'sha256',
    digestAlgorithm: 'sha256',
    identifierFormat: TRANSIENT,
    authnContext: ['https://www.spid.gov.it/SpidL1'],
    racComparison: 'exact',
    attributeConsumingServiceIndex: '0',
    audience: base,
    wantAssertionsSigned: true,
    wantAuthnResponseSigned: true,
    acceptedClockSkewMs: 0,
    // By POST the library looks for InResponseTo on a Response only, and would
    // miss it on every LogoutResponse.
    validateInResponseTo: slo === 'HTTP-POST' ? ValidateInResponseTo.ifPresent : ValidateInResponseTo.always,
  });
}

// SPID wants two attributes on the Issuer that node-saml has no option for.
async function loginURL(saml, base) {
  const request = await saml.generateAuthorizeRequestAsync(false, false);
  const spid = request.replace(/<saml:Issuer /, `<saml:Issuer Format="${ENTITY}" NameQualifier="${base}" `);
  if (spid === request) throw new Error('no Issuer in the AuthnRequest');
  return saml._requestToUrlAsync(spid, null, 'authorize', { RelayState: 'here' });
}

function redirect(res, location) {
  res.writeHead(302, { Location: location, 'Cache-Control': 'no-store' });
  res.end();
}

async function main() {
  const { values } = parseArgs({
    options: {
      'idp-metadata': { type: 'string' },
      slo: { type: 'string' },
      port: { type: 'string', default: '0' },
    },
  });
  if (!['HTTP-POST', 'HTTP-Redirect'].includes(values.slo)) throw new Error('bad --slo');
  const { server, listening: base } = await listen(Number(values.port));
  const pair = makeKeyPair();
  const idp = identityProvider(values['idp-metadata']);
  const saml = consumer(base, idp, pair, values.slo);
  const published = metadata(base, values.slo, pair);
  let profile = null;
  let requests = 0;

  async function logout(res, message, validated) {
    if (!message.Signature && values.slo === 'HTTP-Redirect') throw new Error('the query is not signed');
    if (message.SAMLResponse) return replyJSON(res, 200, { ok: true, loggedOut: validated.loggedOut });
    if (validated.profile.nameID !== profile?.nameID) throw new Error('the LogoutRequest is about somebody else');
    profile = null;
    requests++;
    return redirect(res, await saml.getLogoutResponseUrlAsync(validated.profile, message.RelayState, {}, true));
  }

  const routes = {
    'GET /metadata': (req, res) => reply(res, 200, 'application/samlmetadata+xml', published),
    'GET /login': async (req, res) => redirect(res, await loginURL(saml, base)),
    'POST /acs': async (req, res) => {
      ({ profile } = await saml.validatePostResponseAsync(await readForm(req)));
      replyJSON(res, 200, { ok: true, profile });
    },
    'GET /logout': async (req, res) => redirect(res, await saml.getLogoutUrlAsync(profile, 'gone', {})),
    'GET /slo': async (req, res, url) => {
      const query = Object.fromEntries(url.searchParams);
      return logout(res, query, await saml.validateRedirectAsync(query, url.search.slice(1)));
    },
    'POST /slo': async (req, res) => {
      const form = await readForm(req);
      const validated = form.SAMLRequest
        ? await saml.validatePostRequestAsync(form)
        : await saml.validatePostResponseAsync(form);
      return logout(res, form, validated);
    },
    'GET /state': (req, res) => replyJSON(res, 200, { loggedIn: profile !== null, requests }),
  };

  run(server, base, base, async (req, res) => {
    const url = new URL(req.url, 'http://sp.invalid');
    const route = routes[req.method + ' ' + url.pathname];
    if (!route) return replyJSON(res, 404, { ok: false, error: 'not found' });
    try {
      return await route(req, res, url);
    } catch (err) {
      return replyJSON(res, 403, { ok: false, error: String(err.message) });
    }
  });
}

main().catch((err) => {
  process.stderr.write('nodesaml.js: ' + err.message + '\n');
  process.exit(1);
});
