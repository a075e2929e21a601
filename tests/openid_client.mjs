// npm's openid-client, an app without pages: a command a line comes in, as JSON, and its outcome goes out (tests/openid_client.py).

import { createInterface } from 'node:readline'
import * as openid from 'openid-client'

const WAYS = {
  none: () => openid.None(),
  client_secret_basic: ({ secret }) => openid.ClientSecretBasic(secret),
  client_secret_post: ({ secret }) => openid.ClientSecretPost(secret),
  private_key_jwt: async ({ jwk, audience, typ }) => {
    const algorithm = { RS384: { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-384' }, ES384: { name: 'ECDSA', namedCurve: 'P-384' } }
    const key = await crypto.subtle.importKey('jwk', jwk, algorithm[jwk.alg], false, ['sign'])
    const modify = (header, payload) => {
      if (typ) header.typ = typ
      if (audience) payload.aud = audience
    }
    return openid.PrivateKeyJwt({ key, kid: jwk.kid }, { [openid.modifyAssertion]: modify })
  },
}

let config
let checks

const COMMANDS = {
  // Reads the configuration document and holds the server to it from here on; id tokens must have the signature of a published key.
  async discover({ issuer, algorithm, client_id, id_token_alg, way, ...proof }) {
    const execute = [openid.allowInsecureRequests, openid.enableNonRepudiationChecks]
    const metadata = { id_token_signed_response_alg: id_token_alg }
    config = await openid.discovery(new URL(issuer), client_id, metadata, await WAYS[way](proof), { algorithm, execute })
    return { ...config.serverMetadata(), pkce: config.serverMetadata().supportsPKCE() }
  },
  async authorize(parameters) {
    checks = {
      pkceCodeVerifier: openid.randomPKCECodeVerifier(),
      expectedState: openid.randomState(),
      expectedNonce: openid.randomNonce(),
      maxAge: parameters.max_age,
      idTokenExpected: true,
    }
    return openid.buildAuthorizationUrl(config, {
      ...parameters,
      code_challenge: await openid.calculatePKCECodeChallenge(checks.pkceCodeVerifier),
      code_challenge_method: 'S256',
      state: checks.expectedState,
      nonce: checks.expectedNonce,
    }).href
  },
  async returned({ url, ...changed }) {
    const tokens = await openid.authorizationCodeGrant(config, new URL(url), { ...checks, ...changed })
    return { ...tokens, claims: tokens.claims() }
  },
  refresh: ({ token }) => openid.refreshTokenGrant(config, token),
  backend: ({ scope }) => openid.clientCredentialsGrant(config, { scope }),
  introspect: ({ token }) => openid.tokenIntrospection(config, token),
  revoke: async ({ token }) => (await openid.tokenRevocation(config, token)) ?? null,
  async read({ url, token }) {
    const answer = await openid.fetchProtectedResource(config, token, new URL(url), 'GET')
    return { status: answer.status, body: await answer.json() }
  },
}

const challenges = (cause) => cause.map(({ scheme, parameters }) => ({ scheme, ...parameters }))

for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...parameters } = JSON.parse(line)
  let outcome
  try {
    outcome = { answer: await COMMANDS[command](parameters) }
  } catch (e) {
    const { code, error, error_description, status, message, cause } = e
    outcome = { refused: { code, error, error_description, status, message, ...(Array.isArray(cause) && { challenges: challenges(cause) }) } }
  }
  process.stdout.write(`${JSON.stringify(outcome)}\n`)
}
