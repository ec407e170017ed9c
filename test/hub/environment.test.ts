import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeEach, expect, test, vi } from 'vitest'
import { hubEndpoint, hubOffline, hubTimeout, hubToken } from '../../lib/hub/environment.js'
import { ConfigError } from '../../lib/index.js'

// What the variables mean is said in huggingface_hub's documentation, "Environment variables", and in its constants.py.

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-environment-'))
afterAll(() => rmSync(folder, { recursive: true }))
beforeEach(() => {
  vi.unstubAllEnvs()
  for (const name of Object.keys(process.env)) if (/^(HF_|HUGGING|TRANSFORMERS_)/.test(name)) vi.stubEnv(name, '')
  vi.stubEnv('HF_HOME', folder)
})
afterAll(() => void vi.unstubAllEnvs())

test.each([
  ['', false],
  ['0', false],
  ['no', false],
  ['1', true],
  ['ON', true],
  ['yes', true],
  ['True', true],
  ['10', false],
])('HF_HUB_OFFLINE=%s', (value, wanted) => {
  vi.stubEnv('HF_HUB_OFFLINE', value)
  expect(hubOffline()).toBe(wanted)
})

test('TRANSFORMERS_OFFLINE counts where HF_HUB_OFFLINE says nothing', () => {
  vi.stubEnv('TRANSFORMERS_OFFLINE', '1')
  expect(hubOffline()).toBe(true)
  vi.stubEnv('HF_HUB_OFFLINE', '0')
  expect(hubOffline()).toBe(false)
})

test('HF_HUB_DOWNLOAD_TIMEOUT is a number of seconds, 10 by default', () => {
  expect(hubTimeout()).toBe(10)
  vi.stubEnv('HF_HUB_DOWNLOAD_TIMEOUT', '0.5')
  expect(hubTimeout()).toBe(0.5)
  for (const wrong of ['0', '-1', 'soon', 'NaN']) {
    vi.stubEnv('HF_HUB_DOWNLOAD_TIMEOUT', wrong)
    expect(hubTimeout, wrong).toThrow(ConfigError)
    expect(hubTimeout, wrong).toThrow(/HF_HUB_DOWNLOAD_TIMEOUT: expected a positive number of seconds/)
  }
})

test('HF_ENDPOINT is an http address, without its last slash', () => {
  expect(hubEndpoint()).toBe('https://huggingface.co')
  for (const address of ['http://127.0.0.1:9', 'https://mirror.example/hub/']) {
    vi.stubEnv('HF_ENDPOINT', address)
    expect(hubEndpoint()).toBe(address.replace(/\/$/, ''))
  }
  for (const wrong of ['ftp://x', 'mirror.example', '/hub']) {
    vi.stubEnv('HF_ENDPOINT', wrong)
    expect(hubEndpoint, wrong).toThrow(`HF_ENDPOINT: expected an http or https URL, got "${wrong}"`)
  }
})

test('the token is HF_TOKEN, or the older name, or what `hf auth login` stored', () => {
  expect(hubToken()).toBeUndefined()
  writeFileSync(join(folder, 'token'), 'stored\n')
  expect(hubToken()).toBe('stored')
  writeFileSync(join(folder, 'other'), ' elsewhere ')
  vi.stubEnv('HF_TOKEN_PATH', join(folder, 'other'))
  expect(hubToken()).toBe('elsewhere')
  vi.stubEnv('HUGGING_FACE_HUB_TOKEN', 'older')
  expect(hubToken()).toBe('older')
  vi.stubEnv('HF_TOKEN', ' mine\n')
  expect(hubToken()).toBe('mine')
  vi.stubEnv('HF_HUB_DISABLE_IMPLICIT_TOKEN', '1')
  expect(hubToken()).toBeUndefined()
})
