"""Serve a merged model as a first attempt would: Starlette, and one `generate` after another.

Reads ``{"prompt": TEXT, "max_tokens": N}`` and answers ``{"text": …}``. Greedy, without padding or batching.
"""

import asyncio
import os
import sys
import threading


def main() -> None:
    """Serve the model in a folder on a port."""
    import torch
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, port = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    lock = threading.Lock()

    def answer(prompt: str, max_tokens: int) -> str:
        inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        with lock, torch.inference_mode():
            output = model.generate(
                **inputs,
                max_new_tokens=max_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=tokenizer.eos_token_id,
            )
        return str(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))

    async def complete(request: Request) -> JSONResponse:
        body = await request.json()
        return JSONResponse({"text": await asyncio.to_thread(answer, body["prompt"], body["max_tokens"])})

    app = Starlette(routes=[Route("/v1/completions", complete, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
