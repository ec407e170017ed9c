// What two ranks hold on each GPU, a process each: one context a rank, on its own GPU. With two GPUs they train by
// DistributedDataParallel and ZeroRedundancyOptimizer over NCCL; NCCL takes no GPU twice, so with one GPU they share it and
// gradients are averaged on the CPU. scripts/gpu-check.sh sets VOXTORCH_ADDON and LIBTORCH.
import { execFileSync, spawn } from 'node:child_process'
import { createServer } from 'node:net'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const kind = process.env.VOXTORCH_GPU_CHECK_DEVICE ?? 'cuda'
const SIZE = process.env.VOXTORCH_GPU_CHECK_SIZE || kind === 'cpu' ? 64 : 2048
const CONFIG = { modelType: 'llama', numHiddenLayers: 4, numAttentionHeads: 4, vocabSize: SIZE * 4 }
const STEPS = 3

async function rank() {
  const vt = await import(new URL('../../dist/index.js', import.meta.url).href)
  const gpus = kind === 'cpu' ? 0 : vt.cuda.deviceCount()
  const pretended = process.env.VOXTORCH_GPU_CHECK_PRETENDED
  const own = kind === 'cpu' ? 'cpu' : `cuda:${Number(process.env.RANK) % gpus}`
  const nccl = gpus > 1 && !pretended
  await vt.initProcessGroup({ backend: nccl ? 'nccl' : 'gloo', timeout: 100_000 })
  const config = { ...CONFIG, hiddenSize: SIZE, intermediateSize: SIZE * 2 }
  const model = vt.DecoderLM.fromConfig(config, { device: own, seed: 3 })
  const whole = nccl || kind === 'cpu'
  const trained = whole ? new vt.DistributedDataParallel(model) : model
  const adamw = (params) => new vt.AdamW(params, { lr: 1e-3 })
  const optimizer = whole ? new vt.ZeroRedundancyOptimizer(model.parameters(), adamw) : adamw(model.parameters())
  const losses = []
  for (let step = 0; step < STEPS; step += 1) {
    await vt.scope(async () => {
      vt.manualSeed(10 * step + vt.getRank())
      const tokens = vt.randint(0, CONFIG.vocabSize, [2, 33]).to(own)
      const { logits } = await trained.forward({ inputIds: tokens.narrow(1, 0, 32) })
      const wanted = tokens.narrow(1, 1, 32).reshape([-1])
      const loss = vt.ops.crossEntropyLoss(logits.reshape([-1, CONFIG.vocabSize]), wanted)
      await loss.backward()
      if (!whole) await averaged(vt, model)
      await optimizer.step()
      optimizer.zeroGrad()
      losses.push(loss.item())
    })
  }
  // Equal on all ranks, or they have not trained together.
  const sum = await vt.scope(() => model.parameters().reduce((total, p) => total + p.detach().double().sum().item(), 0))
  const { op } = pretended ? await import(new URL('../../dist/native/call.js', import.meta.url).href) : {}
  const contexts = op ? JSON.parse(op('pretended_cuda::counts')()).contexts : undefined
  const parameters = model.parameters().reduce((total, p) => total + p.numel(), 0)
  const how = whole ? `DDP and ZeRO-1 over ${nccl ? 'NCCL' : 'Gloo'}` : 'gradients averaged on the CPU'
  console.log(JSON.stringify({ rank: vt.getRank(), pid: process.pid, own, how, parameters, losses, sum, contexts }))
  // The memory is asked for from outside, then the rank may go.
  for await (const _ of createInterface({ input: process.stdin })) break
  await vt.destroyProcessGroup()
}

async function averaged(vt, model) {
  const gradients = model.parameters().map(({ grad }) => grad)
  const held = gradients.map((grad) => grad.detach().to('cpu').clone())
  await vt.allReduce(held, { op: 'mean' })
  vt.noGrad(() => {
    for (const [i, grad] of gradients.entries()) grad.copy_(held[i])
  })
}

function ask(program, ...values) {
  try {
    return execFileSync(program, values, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
      .trim()
      .split('\n')
  } catch {
    return []
  }
}
const smi = (query) =>
  ask('nvidia-smi', `--query-${query}`, '--format=csv,noheader,nounits').map((line) => line.split(', '))

/** Each GPU's used MiB, and the contexts on it: [pid, MiB]. A container may not see them. */
function used() {
  const gpus = smi('gpu=index,uuid,memory.used').filter(([, uuid]) => uuid)
  const contexts = smi('compute-apps=gpu_uuid,pid,used_memory').filter(([, pid]) => pid)
  return gpus.map(([index, uuid, total]) => ({
    ...{ index, total: Number(total) },
    contexts: contexts.filter(([on]) => on === uuid).map(([, pid, mib]) => [pid, mib]),
  }))
}

function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })
}

async function parent() {
  const before = kind === 'cpu' ? [] : used()
  const common = { WORLD_SIZE: '2', MASTER_ADDR: '127.0.0.1', MASTER_PORT: String(await freePort()) }
  const children = ['0', '1'].map((number) => {
    const env = { ...process.env, ...common, RANK: number, LOCAL_RANK: number }
    const values = [...process.execArgv, fileURLToPath(import.meta.url), 'rank']
    return spawn(process.execPath, values, { env, stdio: ['pipe', 'pipe', 'inherit'] })
  })
  const ended = children.map((child) => new Promise((resolve) => child.on('close', resolve)))
  const firstLine = async (child) => {
    for await (const line of createInterface({ input: child.stdout })) if (line.startsWith('{')) return JSON.parse(line)
    throw new Error('a rank ended before it had trained')
  }
  let failed = false
  const expect = (condition, message) => {
    if (condition) return
    failed = true
    console.log(`FAILED: ${message}`)
  }
  try {
    const ranks = await Promise.all(children.map(firstLine))
    const after = kind === 'cpu' ? [] : used()
    console.log('rank | device | how | parameters | loss, first and last')
    for (const { rank, own, how, parameters, losses } of ranks) {
      const [first, last] = [losses[0], losses.at(-1)].map((loss) => loss.toFixed(4))
      console.log(`${rank} | ${own} | ${how} | ${(parameters / 1e6).toFixed(1)} million | ${first}, ${last}`)
    }
    expect(ranks[0].sum === ranks[1].sum, `weights differ after ${STEPS} steps: ${ranks.map(({ sum }) => sum)}`)
    console.log('GPU | MiB before | MiB with both ranks | contexts more: pid and MiB')
    for (const [i, { index, total, contexts }] of after.entries()) {
      const old = before[i]?.contexts.map(([pid]) => pid) ?? []
      // A container may see one pid for all.
      const more = contexts.length - old.length
      const fresh = contexts.filter(([pid]) => !old.includes(pid)).map(([pid, mib]) => `${pid}: ${mib}`)
      console.log(
        `${index} | ${before[i]?.total} | ${total} | ${more}${fresh.length > 0 ? ` (${fresh.join(', ')})` : ''}`,
      )
      const wanted = ranks.filter(({ own }) => own === `cuda:${index}`).length
      if (contexts.length > 0) expect(more === wanted, `GPU ${index} has ${more} contexts of ${wanted} ranks`)
    }
    const told = after.some(({ contexts }) => contexts.length > 0)
    if (kind !== 'cpu' && !told) console.log('nvidia-smi tells of no process here: contexts are not counted')
    for (const { rank, own, contexts } of ranks.filter((one) => one.contexts)) {
      console.log(`rank ${rank} on ${own}: contexts on the pretended devices ${contexts.join(', ')}`)
      expect(`cuda:${contexts}` === own, `rank ${rank} of ${own} has contexts on ${contexts.join(', ')}`)
    }
    for (const child of children) child.stdin.end('\n')
  } catch (error) {
    expect(false, error.message)
    for (const child of children) child.kill()
  }
  for (const code of await Promise.all(ended)) expect(code === 0, `a rank ended with ${code}`)
  process.exitCode = failed ? 1 : 0
}

await (process.argv[2] === 'rank' ? rank() : parent())
