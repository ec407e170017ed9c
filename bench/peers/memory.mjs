import { memoryStats } from 'voxtorch'
import { serve } from './serve.mjs'
import { makeTrainingStep } from './training-step.mjs'

const step = makeTrainingStep()

await serve(async ({ steps }) => {
  for (let i = 0; i < steps; i++) await step()
  return { rss: process.memoryUsage.rss(), live: memoryStats().liveTensors }
})
