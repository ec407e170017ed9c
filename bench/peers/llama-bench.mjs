// node llama-bench.mjs <llama-bench> <threads>: times of llama.cpp built for this processor, which neither samples nor leaves C++.
import { execFile } from 'node:child_process'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'

const [program, threads] = process.argv.slice(2)

async function measured({ file, prompt, count }) {
  const args = ['-m', file, '-p', String(prompt), '-n', String(count), '-t', threads, '-r', '1', '-o', 'json']
  const { stdout } = await promisify(execFile)(program, args, { maxBuffer: 1 << 24 })
  const rows = JSON.parse(stdout)
  const ofPrompt = rows.find(({ n_prompt: tokens }) => tokens === prompt)
  const ofTokens = rows.find(({ n_gen: tokens }) => tokens === count)
  return {
    prefill: ofPrompt.avg_ns,
    token: ofTokens.avg_ns / count,
    build: ofPrompt.build_commit,
    cpu: ofPrompt.cpu_info,
  }
}

console.log(JSON.stringify({ 'llama-bench_threads': threads }))
for await (const line of createInterface({ input: process.stdin })) {
  try {
    console.log(JSON.stringify(await measured(JSON.parse(line))))
  } catch (error) {
    console.log(JSON.stringify({ error: error.stack ?? String(error) }))
  }
}
